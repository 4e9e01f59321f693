"""Image classification networks for metafuse.

What it is: the architectures that torchvision made common, with its constructor names and its names and shapes of parameters,
so that weights can be exchanged.
What it is not: trained weights, data sets or image transforms.
Who calls it: users, as ``metafuse_models`` or ``metafuse.models``.

Example:
    >>> import metafuse as mf
    >>> import metafuse_models as models
    >>> net = models.squeezenet1_1(num_classes=10)
    >>> net(mf.ones([2, 3, 32, 32])).shape
    (2, 10)
"""

from .alexnet import AlexNet, alexnet
from .densenet import DenseNet, densenet121, densenet161, densenet169, densenet201
from .googlenet import GoogLeNet, googlenet
from .inception import Inception3, inception_v3
from .mnasnet import MNASNet, mnasnet0_5, mnasnet0_75, mnasnet1_0, mnasnet1_3
from .mobilenet import MobileNetV2, mobilenet_v2
from .res2net import Res2Net, res2net50, res2net101
from .resnet import (
    ResNet,
    Resnet18,
    Resnet26,
    Resnet34,
    Resnet38,
    Resnet50,
    Resnet101,
    Resnet152,
    Resnext50_32x4d,
    Resnext101_32x8d,
    Wide_resnet50_2,
    Wide_resnet101_2,
    resnet18,
    resnet26,
    resnet34,
    resnet38,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from .shufflenetv2 import (
    ShuffleNetV2,
    shufflenet_v2_x0_5,
    shufflenet_v2_x1_0,
    shufflenet_v2_x1_5,
    shufflenet_v2_x2_0,
)
from .squeezenet import SqueezeNet, squeezenet1_0, squeezenet1_1
from .vgg import VGG, vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .weights import register_weights

__version__ = "0.1.0"

__all__ = [name for name, value in list(globals().items()) if callable(value) and not name.startswith("_")]
