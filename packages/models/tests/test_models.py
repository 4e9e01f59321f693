"""The networks: sizes and names of parameters, shapes of results, weights, what is refused."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import sys
import time

import numpy as np
import pytest

import metafuse as mf
import metafuse_models as models
from metafuse import nn
from metafuse.errors import ArgumentError, ShapeError
from metafuse_models.blocks import BasicConv2d, round_width
from metafuse_models.res2net import Bottle2neck, res2net50_14w_8s, res2net50_26w_4s
from metafuse_models.resnet import BasicBlock, Bottleneck

#: numbers of trained parameters that torchvision publishes (res2net: its authors)
PUBLISHED = {
    "alexnet": 61_100_840, "densenet121": 7_978_856, "densenet161": 28_681_000, "densenet169": 14_149_480,
    "densenet201": 20_013_928, "googlenet": 13_004_888, "inception_v3": 27_161_264, "mnasnet0_5": 2_218_512,
    "mnasnet0_75": 3_170_208, "mnasnet1_0": 4_383_312, "mnasnet1_3": 6_282_256, "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336,
    "shufflenet_v2_x0_5": 1_366_792, "shufflenet_v2_x1_0": 2_278_604, "shufflenet_v2_x1_5": 3_503_624,
    "shufflenet_v2_x2_0": 7_393_996, "squeezenet1_0": 1_248_424, "squeezenet1_1": 1_235_496, "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840, "vgg13": 133_047_848, "vgg13_bn": 133_053_736, "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992, "vgg19": 143_667_240, "vgg19_bn": 143_678_248, "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696, "res2net50": 25_699_120, "res2net101": 45_206_688,
}  # fmt: skip

#: one network of each family that is small, and the smallest images it takes
SMALL = {
    "alexnet": 63, "vgg11": 32, "resnet18": 32, "squeezenet1_1": 32, "mobilenet_v2": 32, "shufflenet_v2_x0_5": 32,
    "mnasnet0_5": 32, "googlenet": 32, "inception_v3": 75, "densenet121": 32, "res2net50": 32,
}  # fmt: skip


def make(name, **kwargs):
    return getattr(models, name)(**kwargs)


def trained(network):
    return sum(var.numel() for var in network.parameters() if var.requires_grad)


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_parameters(name):
    assert trained(make(name)) == PUBLISHED[name]


def test_numbers_without_the_auxiliary_heads():
    assert trained(models.googlenet(aux_logits=False)) == 6_624_904
    assert trained(models.inception_v3(aux_logits=False)) == 23_834_568


def test_making_a_network_computes_nothing():
    begin = time.thread_time()  # what it waits for is not its own
    network = models.resnet152()
    assert time.thread_time() - begin < 1.0
    assert all(var._node.buffer is None for var in network.parameters())
    assert np.std(network.fc.weight.numpy()) > 0.01


def test_every_constructor_of_the_reference_api_is_there():
    capitals = [
        "Resnet18", "Resnet26", "Resnet34", "Resnet38", "Resnet50", "Resnet101", "Resnet152", "Resnext50_32x4d",
        "Resnext101_32x8d", "Wide_resnet50_2", "Wide_resnet101_2",
    ]  # fmt: skip
    for name in capitals:
        assert getattr(models, name) is getattr(models, name[0].lower() + name[1:])
    for name in [*PUBLISHED, "resnet26", "resnet38"]:
        assert next(iter(inspect.signature(getattr(models, name)).parameters)) == "pretrained"
    assert {*PUBLISHED, *capitals} <= set(models.__all__)


def test_metafuse_models_is_this_package():
    from metafuse.models import Resnet50, resnet50

    assert resnet50 is Resnet50 is models.resnet50 is mf.models.resnet50
    assert mf.models.res2net.Bottle2neck is Bottle2neck
    assert "vgg16" in dir(mf.models)


def test_without_this_package_metafuse_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "metafuse_models", None)
    monkeypatch.delitem(sys.modules, "metafuse.models", raising=False)
    monkeypatch.delitem(vars(mf), "models", raising=False)
    with pytest.raises(AttributeError, match="pip install metafuse-models"):
        _ = mf.models
    assert not hasattr(mf, "models")
    with pytest.raises(ModuleNotFoundError, match="pip install metafuse-models"):
        importlib.import_module("metafuse.models")


# -- names ------------------------------------------------------------------------------------------------------------
def norm(name):
    return [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]


def dense(name):
    return [f"{name}.weight", f"{name}.bias"]


def test_names_of_resnet18():
    expected = ["conv1.weight", *norm("bn1"), *dense("fc")]
    for stage in range(1, 5):
        for block in range(2):
            for k in (1, 2):
                place = f"layer{stage}.{block}"
                expected += [f"{place}.conv{k}.weight", *norm(f"{place}.bn{k}")]
        if stage > 1:
            expected += [f"layer{stage}.0.downsample.0.weight", *norm(f"layer{stage}.0.downsample.1")]
    assert sorted(models.resnet18().state_dict()) == sorted(expected)


def test_names_of_vgg11_bn_and_alexnet():
    convolutions = [(0, 1), (4, 5), (8, 9), (11, 12), (15, 16), (18, 19), (22, 23), (25, 26)]
    expected = [n for c, b in convolutions for n in (*dense(f"features.{c}"), *norm(f"features.{b}"))]
    expected += [n for k in (0, 3, 6) for n in dense(f"classifier.{k}")]
    assert sorted(models.vgg11_bn().state_dict()) == sorted(expected)
    places = [f"features.{k}" for k in (0, 3, 6, 8, 10)] + [f"classifier.{k}" for k in (1, 4, 6)]
    assert sorted(models.alexnet().state_dict()) == sorted(n for p in places for n in dense(p))


def test_names_of_squeezenet():
    fires = [3, 4, 6, 7, 9, 10, 11, 12]
    places = [f"features.{k}.{part}" for k in fires for part in ("squeeze", "expand1x1", "expand3x3")]
    expected = [n for p in ["features.0", *places, "classifier.1"] for n in dense(p)]
    assert sorted(models.squeezenet1_1().state_dict()) == sorted(expected)


def test_names_of_mobilenet():
    expected = ["features.0.0.weight", *norm("features.0.1"), "features.18.0.weight", *norm("features.18.1")]
    for k in range(1, 18):
        cells = [0] if k == 1 else [0, 1]
        last = len(cells)
        for c in cells:
            expected += [f"features.{k}.conv.{c}.0.weight", *norm(f"features.{k}.conv.{c}.1")]
        expected += [f"features.{k}.conv.{last}.weight", *norm(f"features.{k}.conv.{last + 1}")]
    assert sorted(models.mobilenet_v2().state_dict()) == sorted([*expected, *dense("classifier.1")])


def test_names_of_densenet121():
    expected = [
        "features.conv0.weight",
        *norm("features.norm0"),
        *norm("features.norm5"),
        *dense("classifier"),
    ]
    for block, count in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, count + 1):
            for k in (1, 2):
                place = f"features.denseblock{block}.denselayer{layer}"
                expected += [f"{place}.conv{k}.weight", *norm(f"{place}.norm{k}")]
        if block < 4:
            expected += [f"features.transition{block}.conv.weight", *norm(f"features.transition{block}.norm")]
    assert sorted(models.densenet121().state_dict()) == sorted(expected)


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("googlenet", ["conv1.conv.weight", "inception3a.branch4.1.bn.running_var", "inception5b.branch3.1.conv.weight",
                       "aux1.conv.conv.weight", "aux2.fc1.bias", "fc.weight"]),
        ("inception_v3", ["Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch3x3dbl_3.bn.weight", "AuxLogits.conv1.conv.weight",
                          "Mixed_6c.branch7x7dbl_5.conv.weight", "Mixed_7c.branch3x3dbl_3b.bn.bias", "AuxLogits.fc.bias"]),
        ("shufflenet_v2_x1_0", ["conv1.0.weight", "stage2.0.branch1.2.weight", "stage3.7.branch2.6.running_mean",
                                "conv5.1.bias", "fc.bias"]),
        ("mnasnet1_0", ["layers.0.weight", "layers.8.0.layers.0.weight", "layers.11.1.layers.7.running_var",
                        "layers.14.weight", "classifier.1.bias"]),
        ("res2net50", ["layer1.0.convs.2.weight", "layer4.2.bns.0.weight", "layer2.0.downsample.1.bias"]),
        ("resnext50_32x4d", ["layer1.0.downsample.0.weight", "layer4.2.conv3.weight", "layer3.5.bn3.running_mean"]),
    ],
)  # fmt: skip
def test_names_of_other_networks(name, some):
    assert set(some) <= set(make(name).state_dict())


def test_shapes_of_grouped_and_widened_convolutions():
    assert models.resnext101_32x8d().layer1[0].conv2.weight.shape == (256, 8, 3, 3)
    assert models.wide_resnet101_2().layer4[0].conv2.weight.shape == (1024, 1024, 3, 3)
    assert models.mobilenet_v2().features[1].conv[0][0].weight.shape == (32, 1, 3, 3)


# -- results ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SMALL)
def test_shape_of_the_result(name):
    network = make(name, num_classes=7).eval()
    y = network(mf.randn([2, 3, SMALL[name], SMALL[name]]))
    assert y.shape == (2, 7)
    assert y.dtype == "float32"
    assert np.isfinite(y.numpy()).all()


@pytest.mark.parametrize(("name", "size", "count"), [("googlenet", 64, 3), ("inception_v3", 299, 2)])
def test_training_answers_the_auxiliary_results_too(name, size, count):
    network = make(name, num_classes=4)
    result = network(mf.zeros([2, 3, size, size]))
    assert [r.shape for r in result] == [(2, 4)] * count
    assert result.logits is result[0]
    assert make(name, num_classes=4, aux_logits=False)(mf.zeros([2, 3, size, size])).shape == (2, 4)


def test_a_small_network_learns():
    mf.set_global_seed(3)
    network = models.ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=3)
    optimizer = nn.Adam(network.parameters(), 1e-2)
    x, labels = mf.array(mf.randn([6, 3, 32, 32]).numpy()), mf.array([0, 1, 2, 0, 1, 2])
    losses = []
    for _ in range(8):
        loss = nn.cross_entropy_loss(network(x), labels)
        optimizer.step(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_dilation_in_place_of_stride_keeps_the_size():
    network = models.resnet50(replace_stride_with_dilation=[False, True, True])
    assert [network.layer2[0].conv2.stride, network.layer3[0].conv2.stride] == [(2, 2), (1, 1)]
    assert [network.layer3[1].conv2.dilation, network.layer4[1].conv2.dilation] == [(2, 2), (4, 4)]
    x = mf.zeros([1, 64, 16, 16])
    assert network.layer4(network.layer3(network.layer2(network.layer1(x)))).shape == (1, 2048, 8, 8)


def test_zero_init_residual_and_a_norm_of_ones_choice():
    network = models.resnet26(zero_init_residual=True, norm_layer=lambda n: nn.GroupNorm(4, n))
    assert isinstance(network.layer1[0].bn3, nn.GroupNorm)
    assert not network.layer1[0].bn3.weight.numpy().any()
    assert network.layer1[0].bn2.weight.numpy().all()


def test_first_values_have_the_published_deviations():
    mf.set_global_seed(0)
    network = models.resnet18()
    found = network.layer4[1].conv2.weight.numpy()
    assert found.std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    inception = models.inception_v3()
    assert inception.Mixed_5b.branch5x5_2.conv.weight.numpy().std() == pytest.approx(0.1, rel=0.01)
    assert inception.AuxLogits.conv1.conv.weight.numpy().std() == pytest.approx(0.01, rel=0.01)
    assert inception.AuxLogits.fc.weight.numpy().std() == pytest.approx(0.001, rel=0.01)
    assert not models.mnasnet0_5().classifier[1].bias.numpy().any()


def test_res2net_block_of_one_group_and_of_a_stage():
    block = Bottle2neck(8, 4, scale=1, baseWidth=64, downsample=nn.Conv(8, 16, 1))
    assert block(mf.randn([2, 8, 5, 5])).shape == (2, 16, 5, 5)
    stage = Bottle2neck(8, 4, 2, nn.Conv(8, 16, 1, 2), baseWidth=32, scale=3, stype="stage")
    assert stage(mf.randn([2, 8, 6, 6])).shape == (2, 16, 3, 3)
    assert res2net50_14w_8s().layer1[0].convs[6].weight.shape == (14, 14, 3, 3)
    assert trained(res2net50_26w_4s()) == PUBLISHED["res2net50"]


def test_channel_shuffle_is_undone_by_the_other_grouping():
    shuffle = mf.models.shufflenetv2.channel_shuffle
    x = mf.randn([2, 12, 3, 3])
    np.testing.assert_array_equal(shuffle(shuffle(x, 3), 4).numpy(), x.numpy())
    with pytest.raises(ArgumentError, match="5 and 12"):
        shuffle(x, 5)


@pytest.mark.parametrize(
    ("width", "rounded"), [(12, 16), (11, 16), (24 * 0.75, 24), (3, 8), (32, 32), (83.2, 80)]
)
def test_widths_are_rounded_but_not_by_more_than_a_tenth_down(width, rounded):
    assert round_width(width) == rounded


# -- weights ------------------------------------------------------------------------------------------------------
def test_weights_from_a_file_a_mapping_and_a_registered_place(tmp_path):
    path = tmp_path / "net.npz"
    first = models.squeezenet1_1(num_classes=3)
    first.save(str(path))
    x = mf.randn([1, 3, 32, 32])
    expected = first.eval()(x).numpy()
    state = {**first.state_dict("numpy"), "bn.num_batches_tracked": np.zeros(1)}
    models.register_weights("squeezenet1_1", path)
    try:
        for given in (path, str(path), state, True):
            network = models.squeezenet1_1(pretrained=given, num_classes=3).eval()
            np.testing.assert_array_equal(network(x).numpy(), expected)
    finally:
        models.weights._SOURCES.pop("squeezenet1_1")


def test_registered_addresses_are_fetched_and_checked(tmp_path, monkeypatch):
    import hashlib

    source = tmp_path / "there.npz"
    models.mnasnet0_5().save(str(source))
    md5 = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setenv("METAFUSE_MODELS", str(tmp_path / "kept"))
    monkeypatch.setitem(models.weights._SOURCES, "mnasnet0_5", models.weights.Source(source.as_uri(), md5))
    network = models.mnasnet0_5(pretrained=True)
    assert trained(network) == PUBLISHED["mnasnet0_5"]
    assert [p.name for p in (tmp_path / "kept").iterdir()] == [f"mnasnet0_5-{md5[:8]}.npz"]
    with pytest.raises(ArgumentError, match="needs the md5"):
        models.register_weights("resnet18", "https://example.org/resnet18.npz")


def test_weights_of_auxiliary_heads_may_be_left_over():
    state = models.googlenet(num_classes=3).state_dict("numpy")
    network = models.googlenet(state, num_classes=3, aux_logits=False)
    np.testing.assert_array_equal(network.fc.weight.numpy(), state["fc.weight"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.resnet18(pretrained=True), r"\[resnet18\] no weights are known.*register_weights\('resnet18'"),
        (lambda: models.resnet18(pretrained=3), r"\[resnet18\] pretrained must be True, False, a path or a mapping, got int"),
        (lambda: models.resnet18({"fc.weight": np.ones(1), "odd": np.ones(1)}),
         r"\[resnet18\] .* another network: missing conv1.weight.* and \d+ more; unknown odd"),
        (lambda: models.alexnet(models.alexnet().state_dict("numpy"), num_classes=5), r"classifier.6.weight: \(5, 4096\) here"),
        (lambda: models.SqueezeNet("2_0"), r"\[SqueezeNet\] version must be '1_0' or '1_1', got '2_0'"),
        (lambda: models.ResNet(BasicBlock, [1, 1]), r"\[ResNet\] needs 4 numbers of layers"),
        (lambda: models.resnet18(groups=2), r"\[BasicBlock\].*use Bottleneck"),
        (lambda: models.Res2Net(Bottle2neck, [1]), r"\[Res2Net\] needs 4"),
        (lambda: Bottle2neck(4, 4, stype="other"), r"\[Bottle2neck\].*'other'"),
        (lambda: models.ShuffleNetV2([1], [8, 8]), r"\[ShuffleNetV2\] needs 3"),
        (lambda: mf.models.shufflenetv2.InvertedResidual(4, 8, 1), r"\[InvertedResidual\].*inp=4"),
        (lambda: mf.models.mobilenet.InvertedResidual(4, 8, 3, 1), r"\[InvertedResidual\] stride must be 1 or 2, got 3"),
        (lambda: models.MobileNetV2(inverted_residual_setting=[[1, 2]]), r"\[MobileNetV2\].*\[\[1, 2\]\]"),
        (lambda: models.MNASNet(0), r"\[MNASNet\] alpha must be a number > 0, got 0"),
        (lambda: models.GoogLeNet(blocks=[BasicConv2d]), r"\[GoogLeNet\] blocks must be None or 3"),
        (lambda: models.Inception3(inception_blocks=[]), r"\[Inception3\] inception_blocks must be None or 7"),
        (lambda: models.vgg16(num_classes=0), r"out_features must be >= 1, got 0"),
    ],
)  # fmt: skip
def test_what_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_weights_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        models.resnet18(str(tmp_path / "none.npz"))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("alexnet", [1, 3, 32, 32], "window does not fit: size 1"),
        ("inception_v3", [1, 3, 64, 64], "window does not fit"),
        ("resnet18", [1, 1, 32, 32], "x has 1 channels"),
        ("resnet18", [3, 32, 32], r"x must have 4 dimensions"),
    ],
)
def test_images_that_do_not_fit(name, shape, message):
    with pytest.raises((ShapeError, ArgumentError), match=message):
        make(name).eval()(mf.zeros(shape))


@pytest.mark.parametrize("name", [m.name for m in pkgutil.iter_modules(models.__path__)])
def test_examples_in_the_text(name):
    module = importlib.import_module(f"metafuse_models.{name}")
    try:
        assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
    finally:
        models.weights._SOURCES.clear()


def test_bottleneck_is_what_it_says():
    block = Bottleneck(8, 2)
    assert [c.weight.shape for c in (block.conv1, block.conv2, block.conv3)] == [
        (2, 8, 1, 1),
        (2, 2, 3, 3),
        (8, 2, 1, 1),
    ]
    assert block(mf.randn([1, 8, 4, 4])).shape == (1, 8, 4, 4)
