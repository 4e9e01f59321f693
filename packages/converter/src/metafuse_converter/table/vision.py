"""Names of torchvision: data sets, transforms, networks."""

from __future__ import annotations

from ..rules import Rule, absent, becomes, by

__all__ = ["RULES"]

_T = "torchvision.transforms"
_D = "torchvision.datasets"
_MNIST = "root, train=True, transform=None, target_transform=None, download=False"

RULES: dict[str, Rule] = {
    f"{_D}.MNIST": becomes("data.MNIST", _MNIST, renames={"root": "data_root"}, kind="dataset"),
    f"{_D}.CIFAR10": becomes("data.CIFAR10", _MNIST, kind="dataset"),
    f"{_D}.CIFAR100": becomes("data.CIFAR100", _MNIST, kind="dataset"),
    f"{_D}.ImageFolder": becomes("data.ImageFolder", "root, transform=None, target_transform=None, loader=None",
        kind="dataset"),
    f"{_D}.FakeData": absent("write a `Dataset`"),
    f"{_T}.Normalize": becomes("transform.ImageNormalize", "mean, std, inplace=False"),
    f"{_T}.ToTensor": becomes("transform.ToTensor", ""),
    f"{_T}.Compose": becomes("transform.Compose", "transforms"),
    f"{_T}.Grayscale": becomes("transform.Gray", "num_output_channels=1"),
    f"{_T}.RandomGrayscale": becomes("transform.RandomGray", "p=0.1"),
    f"{_T}.Lambda": becomes("transform.Lambda", "lambd"),
    f"{_T}.Resize": becomes("transform.Resize", "size, interpolation=None, max_size=None, antialias=True",
        dropped=("antialias", "interpolation"), special="resize"),
    f"{_T}.RandomCrop": becomes("transform.RandomCrop",
        "size, padding=None, pad_if_needed=False, fill=0, padding_mode='constant'", alike=("padding",)),
    f"{_T}.RandomResizedCrop": becomes("transform.RandomResizedCrop",
        "size, scale=(0.08, 1.0), ratio=(0.75, 1.3333333333333333), interpolation=None, antialias=True",
        dropped=("antialias", "interpolation")),
    f"{_T}.RandomHorizontalFlip": becomes("transform.RandomHorizontalFlip", "p=0.5"),
    f"{_T}.RandomVerticalFlip": becomes("transform.RandomVerticalFlip", "p=0.5"),
    f"{_T}.CenterCrop": becomes("transform.CenterCrop", "size"),
    f"{_T}.ToPILImage": becomes("transform.ToPILImage", "mode=None"),
    f"{_T}.RandomRotation": becomes("transform.RandomRotation",
        "degrees, interpolation=None, expand=False, center=None, fill=0", dropped=("interpolation",), alike=("fill",)),
    f"{_T}.InterpolationMode": absent("give Pillow's numbers: 2 is bilinear"),
    "torchvision.utils.save_image": becomes("save_image",
        "tensor, fp, format=None, nrow=8, padding=2, normalize=False, value_range=None, scale_each=False, pad_value=0.0",
        renames={"tensor": "x", "fp": "filepath", "value_range": "range"}, kind="other"),
    "torchvision.utils.make_grid": becomes("make_grid",
        "tensor, nrow=8, padding=2, normalize=False, value_range=None, scale_each=False, pad_value=0.0",
        renames={"tensor": "x", "value_range": "range"}, kind="tensor"),
    **{f"torchvision.models.{name}": becomes("", "*, weights=None, progress=True, pretrained=False, num_classes=1000",
        dropped=("progress",), special="network", kind="module") for name in ( "alexnet", "vgg11", "vgg13", "vgg16", "vgg19",
        "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
        "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2", "squeezenet1_0", "squeezenet1_1",
        "mobilenet_v2", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "mnasnet0_5",
        "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "googlenet", "inception_v3", "densenet121", "densenet161", "densenet169",
        "densenet201", )},
    "torchvision.ops.nms": by("{mf}.nms({mf}.concat([{boxes}, {scores}.unsqueeze(1)], 1), {iou_threshold})",
        "boxes, scores, iou_threshold", kind="tensor"),
}  # fmt: skip
