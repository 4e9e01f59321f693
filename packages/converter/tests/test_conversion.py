"""Single conversions: names in all spellings, arguments, training steps, definitions, what is left alone, what is refused."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import metafuse as mf
from metafuse_converter import SourceError, convert_source

HEADER = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\nimport torch.optim as optim\n"


def lines(text, header=HEADER, target="metafuse"):
    """The converted lines of ``text``, without imports."""
    done = convert_source(header + text, target=target)
    assert done.report == []
    kept = [line for line in done.source.splitlines() if not line.startswith(("import ", "from "))]
    return "\n".join(kept).strip()


# -- imports and names ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch\nx = torch.cat([a, b])\n", "import metafuse as mf\nx = mf.concat([a, b])\n"),
        ("import torch as th\nx = th.zeros(2)\n", "import metafuse as mf\nx = mf.zeros(2)\n"),
        ("from torch import nn\nl = nn.Conv2d(1, 2, 3)\n", "from metafuse import nn\nl = nn.Conv2d(1, 2, 3)\n"),
        ("import torch.nn.functional as F\ny = F.relu(x)\n", "import metafuse.nn as F\ny = F.relu(x)\n"),
        ("import torch.nn\nl = torch.nn.Linear(1, 2)\n", "import metafuse as mf\nl = mf.nn.Linear(1, 2)\n"),
        ("from torch.nn import Conv2d, Linear\nl = Linear(1, 2)\n", "from metafuse.nn import Conv2d, Linear\nl = Linear(1, 2)\n"),
        ("from torch.nn import functional as F, init\nF.gelu(x)\ninit.ones_(w)\n", "from metafuse import nn as F, init\nF.gelu(x)\ninit.one_(w)\n"),
        ("from torch import cat as join\ny = join((a, b), dim=1)\n", "from metafuse import concat as join\ny = join((a, b), dim=1)\n"),
        ("import os, torch, sys\ntorch.ones(1)\n", "import os, sys\nimport metafuse as mf\nmf.ones(1)\n"),
        ("from torch.utils.data import DataLoader, Dataset\n", "from metafuse.data import DataLoader, Dataset\n"),
        ("import torchvision.transforms as T\nt = T.Normalize(0.5, 0.5)\n", "import metafuse.transform as T\nt = T.ImageNormalize(0.5, 0.5)\n"),
        ("from torchvision import models\nn = models.resnet18(pretrained=False)\n", "from metafuse import models\nn = models.resnet18()\n"),
        ("from torch.optim.lr_scheduler import LambdaLR\ns = LambdaLR(o, f)\n", "from metafuse.lr_scheduler import LambdaLR\ns = LambdaLR(o, f)\n"),
        ("def f():\n    import torch\n    return torch.ones(1)\n", "import metafuse as mf\ndef f():\n    import metafuse as mf\n    return mf.ones(1)\n"),
        ("from torch import nn\nx = nn.functional.relu(y)\n", "from metafuse import nn\nx = nn.relu(y)\n"),
    ],
)  # fmt: skip
def test_imports_in_all_spellings(before, after):
    assert convert_source(before).source == after


def test_the_other_target():
    text = "import torch\nfrom torch.utils.data import DataLoader\nx = torch.cat([a, b], dim=0)\n"
    assert convert_source(text, target="jittor").source == (
        "import jittor as jt\nfrom jittor.dataset import DataLoader\nx = jt.concat([a, b], dim=0)\n"
    )


def test_a_name_that_is_taken_is_not_used():
    done = convert_source("import torch\nmf = 3\nprint(torch.ones(mf))\n")
    assert done.source == "import metafuse as metafuse\nmf = 3\nprint(metafuse.ones(mf))\n"


@pytest.mark.parametrize(
    "text",
    [
        "torch = make()\nprint(torch.cat([a], dim=1), torch.nn.Conv2d(1, 2, 3))\n",
        "import numpy as np\ndef f(torch):\n    return torch.max(1), np.argmax(torch, 1)\n",
        "class A:\n    def size(self):\n        return self.data.max(1)\n    def forward(self, x):\n        return x\n",
        "from .torch import cat\nfrom mytorch import nn\nnn.Dropout(0.5)\ncat((1, 2), dim=0)\n",
        "x = '''import torch'''  # import torch\n",
    ],
)
def test_what_is_not_pytorchs_stays(text):
    assert convert_source(text).source == text
    if text.startswith("torch ="):
        return
    with_torch = "import torch\n" + text
    assert convert_source(with_torch).source.partition("\n")[2].endswith(text.partition("\n")[2])


def test_a_local_variable_shadows_the_import():
    text = "import torch\ndef f(torch, x):\n    return torch.cat(x, dim=0)\ndef g(x):\n    return torch.cat(x, dim=0)\n"
    after = "import metafuse as mf\ndef f(torch, x):\n    return torch.cat(x, dim=0)\ndef g(x):\n    return mf.concat(x, dim=0)\n"
    assert convert_source(text).source == after


def test_methods_of_others_stay():
    text = "import numpy as np\narr = np.zeros((2, 3))\nprint(arr.max(1), arr.T, arr.std(), arr.argmax(1))\nwords = 'a b'.split()\nwords.sort(key=len)\nd = {}\nd.data = 3\n"
    assert lines(text) == text.partition("\n")[2].strip()


# -- calls ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("F.relu(x, inplace=True)", "F.relu(x)"),
        ("F.dropout(x, 0.3, self.training)", "F.dropout(x, 0.3, self.training)"),
        ("F.dropout(x, training=False)", "F.dropout(x, is_train=False)"),
        ("F.dropout(x)", "F.dropout(x, is_train=True)"),
        ("nn.LeakyReLU(negative_slope=0.2)", "nn.LeakyReLU(scale=0.2)"),
        ("torch.zeros(2, 3, device=device)", "mf.zeros(2, 3)"),
        ("torch.sum(input=x, dim=1, keepdim=True)", "mf.sum(x=x, dim=1, keepdims=True)"),
        ("torch.randint(5, (2,))", "mf.randint(0, 5, (2,))"),
        ("torch.randint(high=5, size=(2,))", "mf.randint(low=0, high=5, shape=(2,))"),
        ("torch.max(torch.ones(2), torch.zeros(2))", "mf.maximum(mf.ones(2), mf.zeros(2))"),
        ("torch.manual_seed(1)", "mf.set_global_seed(1)"),
        ("torch.cuda.is_available()", "bool(mf.flags.use_cuda)"),
        ("torch.device('cuda:0')", "'cuda:0'"),
        ("torch.float32", "mf.float32"),
        ("torch.nn.init.normal_(w, std=0.02)", "mf.init.gauss_(w, std=0.02)"),
        ("torch.tensor([1.0], requires_grad=True)", "mf.array([1.0])"),
        ("optim.Adam(ps, betas=(0.5, 0.9), eps=1e-6)", "optim.Adam(ps, betas=(0.5, 0.9), eps=1e-6, lr=0.001)"),
        ("optim.SGD(ps, 0.1, 0.9, 0, 1e-4)", "optim.SGD(ps, 0.1, 0.9, dampening=0, weight_decay=1e-4)"),
        ("torch.sum(x, 1, dtype=torch.float64)", "mf.sum(x, 1).cast(mf.float64)"),
        ("isinstance(x, torch.Tensor)", "isinstance(x, mf.Var)"),
        ("x.sum(dim=1, keepdim=True)", "x.sum(dim=1, keepdims=True)"),
        ("x.to('cuda')", "x"),
        ("(a + b).to(device)", "(a + b)"),
        ("x.cuda().cpu()", "x.cpu()"),
        ("torch.set_grad_enabled(flag)", "mf.enable_grad() if flag else mf.no_grad()"),
        ("torch.norm(x - y, 2)", "(x - y).flatten().norm(2)"),
        ("next(net.parameters())", "next(iter(net.parameters()))"),
        ("torch.autograd.grad(y, x)[0]", "mf.grad(y, [x])[0]"),
        ("torch.cuda.amp.autocast()", 'mf.amp.autocast(dtype="float16")'),
        ("nn.DataParallel(net, device_ids=[0, 1])", "net"),
        ("nn.CrossEntropyLoss(label_smoothing=0.1)", "nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=-100)"),
        ("F.cross_entropy(x, y, w, None, 7)", "F.cross_entropy_loss(x, y, w, 7)"),
        ("nn.MSELoss(size_average=False)", 'nn.MSELoss(reduction="sum")'),
        ("nn.BCELoss(w, True, False)", 'nn.BCELoss(w, reduction="none")'),
        ("F.nll_loss(x, y, w, False, 3)", 'F.nll_loss(x, y, w, ignore_index=3, reduction="sum")'),
        ("nn.L1Loss(size_average=None)", "nn.L1Loss()"),
        ("nn.BCEWithLogitsLoss(reduction='none')", "nn.BCEWithLogitsLoss(reduction='none')"),
        ("optim.RMSprop(ps, 0.1, 0.9, momentum=0.5)", "optim.RMSprop(ps, 0.1, alpha=0.9, momentum=0.5)"),
        ("torch.utils.data.SubsetRandomSampler(some)", "mf.data.SubsetRandomSampler(None, some)"),
        ("nn.Embedding(4, 2, padding_idx=0)", "nn.Embedding(4, 2, padding_idx=0, train_padding=False)"),
        ("nn.Embedding(4, 2)", "nn.Embedding(4, 2)"),
        ("x.to(memory_format=torch.channels_last)", "x"),
        ("sum(p.numel() for p in net.parameters())", "sum(p.numel() for p in net.parameters(buffers=False))"),
        ("optim.Adam(net.parameters(), 0.1)", "optim.Adam(net.parameters(), 0.1)"),
        ("nn.TransformerEncoderLayer(8, 2, 16, 0.0, 'gelu', 1e-5, True, device=d)",
         "nn.TransformerEncoderLayer(8, 2, 16, 0.0, 'gelu', 1e-5, True)"),
        ("nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)", "nn.TransformerEncoder(layer, 2)"),
        ("nn.Transformer.generate_square_subsequent_mask(n, device=d)", "nn.Transformer.generate_square_subsequent_mask(n)"),
        ("optim.NAdam(ps, 0.1, (0.9, 0.99), foreach=True)", "optim.NAdam(ps, 0.1, betas=(0.9, 0.99))"),
        ("torch.vstack(tensors=(a, b))", "mf.vstack(arrays=(a, b))"),
        ("torch.fmod(a, b)", "mf.fmod(a, b)"),
        ("torch.arange(4.0)", 'mf.arange(4.0, dtype="float32")'),
        ("torch.arange(0, 1, 0.5)", "mf.arange(0, 1, 0.5)"),
        ("torch.utils.data.random_split(d, [1, 2], generator=torch.Generator().manual_seed(4))",
         "mf.data.random_split(d, [1, 2], generator=None)"),
        ("for k, p in sorted(net.named_parameters()): p.data.mul_(2)", "for k, p in sorted(net.named_parameters(buffers=False)): p.mul_(2)"),
        ("unknown.data.fill_(0)", "unknown.fill_(0)"),
        ("torch.optim.lr_scheduler.StepLR(o, 3)", "mf.optim.lr_scheduler.StepLR(o, 3, last_epoch=0)"),
    ],
)  # fmt: skip
def test_calls(before, after):
    assert lines(before) == after


def test_arguments_over_several_lines_keep_their_form():
    text = "layer = nn.Conv2d(\n    3,  # colours\n    8,\n    kernel_size=3,\n    padding_mode='zeros',  # as ever\n    bias=False,\n)\n"
    after = lines(text)
    assert "3,  # colours\n" in after
    assert "# as ever" in after
    assert "padding_mode" not in after
    assert ast.dump(ast.parse(after)) == ast.dump(
        ast.parse("layer = nn.Conv2d(3, 8, kernel_size=3, bias=False)")
    )


# -- training steps --------------------------------------------------------------------------------------------------------
def test_backward_and_step_become_one():
    text = "optimizer = optim.SGD(net.parameters(), lr=0.1)\nloss.backward()  # gradients\noptimizer.step()  # update\n"
    after = "optimizer = optim.SGD(net.parameters(), lr=0.1)\n# gradients\noptimizer.step(loss)  # update"
    assert lines(text) == after


def test_what_stands_between_keeps_them_apart():
    text = (
        "opt_a = optim.Adam(a.parameters(), lr=1.0)\nopt_b = optim.Adam(b.parameters(), lr=1.0)\n"
        "b.zero_grad()\nfirst.backward()\nsecond.backward(retain_graph=True)\nopt_b.step()\n"
        "loss.backward()\ntorch.nn.utils.clip_grad_norm_(a.parameters(), 1.0)\nopt_a.step()\n"
    )
    assert lines(text).splitlines()[2:] == [
        "opt_b.zero_grad()", "opt_b.backward(first)", "opt_b.step(second, retain_graph=True)",
        "opt_a.backward(loss)", "opt_a.clip_grad_norm(1.0)", "opt_a.step()",
    ]  # fmt: skip


def test_limits_on_elements_of_gradients():
    text = (
        "opt = optim.RAdam(net.parameters())\nloss.backward()\nnn.utils.clip_grad_value_(net.parameters(), clip_value=2)\n"
        "opt.step()\n"
    )
    assert lines(text).splitlines()[1:] == ["opt.backward(loss)", "opt.clip_grad_value(2)", "opt.step()"]
    done = convert_source(HEADER + "nn.utils.clip_grad_value_(ps, 2)\n")
    assert "write optimizer.clip_grad_value(clip_value)" in done.report[0]


def test_parts_of_data_sets_are_data_sets():
    text = (
        "from torch.utils.data import ConcatDataset, Subset, TensorDataset, random_split\nwhole = TensorDataset(x)\n"
        "g = torch.Generator()\ng.manual_seed(1)\na, b = random_split(whole, [3, len(whole) - 3], g)\n"
        "parts = random_split(whole, (0.5, 0.5))\nsizes = [len(a), len(parts[1]), *(len(p) for p in parts)]\n"
        "more = len(ConcatDataset([a, Subset(b, [0])]))\n"
    )
    assert lines(text).splitlines()[1:] == [
        "g = None", "g", "a, b = random_split(whole, [3, whole.item_count() - 3], g)", "parts = random_split(whole, (0.5, 0.5))",
        "sizes = [a.item_count(), parts[1].item_count(), *(p.item_count() for p in parts)]",
        "more = ConcatDataset([a, Subset(b, [0])]).item_count()",
    ]  # fmt: skip


def test_going_up_is_not_converted_into_going_down():
    done = convert_source(
        HEADER + "a = optim.SGD(ps, lr=0.1, maximize=True)\nb = optim.Adagrad(ps, maximize=False)\n"
    )
    assert [r.name for r in done.unconverted] == ["torch.optim.SGD"]
    assert "b = optim.Adagrad(ps)" in done.source


def test_what_was_converted_is_told():
    done = convert_source("import torch\ny = torch.cat([a]).item()\nz = torch.stft(y)\nw = numbers.sum()\n")
    assert [(r.line, r.name, r.why) for r in done.converted] == [
        (2, "torch.Tensor.item", "same: Var.item"), (2, "torch.cat", "renamed: concat"),
    ]  # fmt: skip


def test_steps_of_classes_and_of_parameters_of_functions():
    text = (
        "class T:\n    def __init__(self, net):\n        self.opt_g = optim.SGD(net.parameters(), lr=1.0)\n"
        "    def run(self, loss):\n        (loss / 2).backward()\n"
        "def train(loss, optimizer, scheduler):\n    loss.backward()\n    if ready:\n        optimizer.step()\n    scheduler.step()\n"
    )
    after = lines(text)
    assert "self.opt_g.backward((loss / 2))" in after or "self.opt_g.backward(loss / 2)" in after
    assert (
        "    optimizer.backward(loss)\n    if ready:\n        optimizer.step()\n    scheduler.step()" in after
    )


def test_a_backward_without_an_optimizer_is_listed():
    done = convert_source("import torch\ny = torch.ones(3)\ny.sum().backward()\n")
    assert [(r.line, r.name) for r in done.unconverted] == [(3, "torch.Tensor.backward")]
    assert "metafuse.grad" in done.report[0]


def test_scalers():
    text = (
        "scaler = torch.cuda.amp.GradScaler()\noptimizer = optim.SGD(ps, lr=0.1)\n"
        "scaler.scale(loss).backward()\nscaler.step(optimizer)\nscaler.update()\n"
    )
    assert lines(text).splitlines()[2:4] == [
        "optimizer.backward(scaler.scale(loss))",
        "scaler.step(optimizer)",
    ]


# -- definitions -------------------------------------------------------------------------------------------------------------
def test_functions_with_gradients():
    text = (
        "class Twice(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x):\n        ctx.save_for_backward(x)\n"
        "        return 2 * x\n\n    @staticmethod\n    def backward(ctx, g):\n        x, = ctx.saved_tensors\n        return 2 * g\n"
    )
    found = {}
    exec(convert_source(HEADER + text).source, found)
    x = mf.array([3.0])
    assert mf.grad(found["Twice"].apply(x), x).item() == 2


def test_modules_and_their_attributes():
    text = (
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.scale = torch.ones(3)\n"
        "        self.weight = nn.Parameter(torch.ones(3))\n    def forward(self, x):\n        return x * self.scale * self.weight\n"
        "class Wide(Net):\n    def forward(self, x):\n        return super().forward(x) + self.forward_again(x)\n"
        "    def forward_again(self, x):\n        return x\n"
    )
    found = {}
    exec(convert_source(HEADER + text).source, found)
    net = found["Wide"]()
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["weight"]
    assert net(mf.ones(3)).tolist() == [2, 2, 2]


def test_rates_of_parameter_groups():
    text = (
        "optimizer = optim.SGD(ps, lr=0.1)\nfor group in optimizer.param_groups:\n    group['lr'] *= 0.5\n    group['lr'] = 1.0\n"
        "print(optimizer.param_groups[0]['lr'])\n"
    )
    assert lines(text).splitlines()[2:] == [
        "    group['lr'] = optimizer.option(group, \"lr\") * 0.5", "    group['lr'] = 1.0",
        'print(optimizer.option(optimizer.param_groups[0], "lr"))',
    ]  # fmt: skip


# -- what is not converted ------------------------------------------------------------------------------------------------------
UNKNOWN = '''"""Doc."""
from __future__ import annotations
import torch
from torch import nn
from torch.nn import FractionalMaxPool2d as Pool, Linear
import torch.utils.tensorboard as board


def good():
    return torch.ones(2)


def bad(x):
    return torch.stft(x, 4)  # not offered


def argument():
    return nn.Conv2d(1, 1, 3, padding_mode="circular")


def pool():
    return Pool(2)


def writer():
    return board.SummaryWriter()


class Late(nn.AdaptiveLogSoftmaxWithLoss):
    pass
'''


def test_names_without_counterpart_are_listed_and_raise_only_when_used():
    done = convert_source(UNKNOWN, filename="some.py")
    assert [(r.line, r.name) for r in done.unconverted] == [
        (14, "torch.stft"), (18, "torch.nn.Conv2d"), (22, "torch.nn.FractionalMaxPool2d"),
        (26, "torch.utils.tensorboard.SummaryWriter"), (29, "torch.nn.AdaptiveLogSoftmaxWithLoss"),
    ]  # fmt: skip
    assert done.report[0].startswith("some.py:14: torch.stft: ")
    assert "torch.stft(x, 4)  # not offered" in done.source
    found = {}
    exec(done.source, found)
    assert found["good"]().tolist() == [1, 1]
    for name, words in (
        ("argument", "padding_mode"),
        ("pool", "FractionalMaxPool2d"),
        ("writer", "tensorboard"),
        ("Late", "AdaptiveLog"),
    ):
        with pytest.raises(
            RuntimeError, match=rf"(?s){words}.*not converted to metafuse|not converted to metafuse.*{words}"
        ):
            found[name]()
    with pytest.raises(RuntimeError, match="line 14 of the original"):
        found["bad"](None)
    assert convert_source(done.source).source == done.source


def test_settings_without_meaning_become_remarks():
    done = convert_source(
        "import torch\ntorch.backends.cudnn.benchmark = True  # fast\nif a:\n    torch.backends.cudnn.enabled = False\n"
    )
    assert done.source == (
        "import metafuse as mf\n# fast\npass  # torch.backends.cudnn.benchmark = True\nif a:\n    pass  # torch.backends.cudnn.enabled = False\n"
    )
    assert [n.line for n in done.notes] == [2, 4]


def test_star_imports_are_told():
    done = convert_source("from torch.nn import *\nlayer = Linear(1, 2)\n")
    assert done.source == "from metafuse.nn import *\nlayer = Linear(1, 2)\n"
    assert [r.name for r in done.unconverted] == ["torch.nn.*"]


@pytest.mark.parametrize(
    "text", ["import torch\nx = (1,\n", "import torch\n\nprint 'x'\n", "x = 1\n  y = 2\n", "\x00"]
)
def test_what_is_no_python_is_an_error_with_its_line(text):
    with pytest.raises(SourceError, match=r"file\.py:\d+: ") as caught:
        convert_source(text, filename="file.py")
    assert isinstance(caught.value.line, int)


def test_other_targets_are_errors():
    with pytest.raises(mf.MetafuseError, match="target must be one of metafuse, jittor, got 'tensorflow'"):
        convert_source("", target="tensorflow")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("indent", ["  ", "\t"])
def test_newlines_and_indents_stay(newline, indent):
    text = newline.join(["import torch", "def f(x):", f"{indent}return torch.cat(x)", ""])
    after = newline.join(["import metafuse as mf", "def f(x):", f"{indent}return mf.concat(x)", ""])
    assert convert_source(text).source == after


def test_what_is_written_needs_no_converter():
    code = (
        convert_source(UNKNOWN).source
        + "\nimport sys\nassert 'metafuse_converter' not in sys.modules and 'libcst' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_a_class_gives_itself_is_no_method_of_tensors():
    text = (
        "class Net(nn.Module):\n    def __init__(self, norm):\n        super().__init__()\n        self.norm = norm(3) if norm else None\n"
        "    def max(self, x):\n        return x\n    def forward(self, x):\n        y = self.norm(x).norm(2)\n"
        "        return self.max(y, dim=1)\n"
    )
    after = lines(text)
    assert "y = self.norm(x).flatten().norm(2)" in after
    assert "return self.max(y, dim=1)" in after


def test_data_that_several_loaders_share():
    load = "torch.utils.data.DataLoader"
    text = f"a = {load}(data, 2, sampler=s)\nb = {load}(data, 3)\nc = {load}(other, 3)\ndef make(d):\n    return {load}(d, 4)\n"
    after = lines(text)
    for line in ("a = mf.data.DataLoader(data, 2, sampler=s, copy=True)", "b = mf.data.DataLoader(data, 3, copy=True)",
                 "c = mf.data.DataLoader(other, 3)\n", "return mf.data.DataLoader(d, 4, copy=True)"):  # fmt: skip
        assert line in after


def test_parts_that_are_changed_and_gradients_that_may_be_missing():
    text = (
        "x = torch.zeros(3, 4)\nx[0].fill_(2)  # row\nx[1].mul_(2).add_(1)\nrows[0].zero_()\nnet[0].requires_grad_(False)\n"
        "opt = optim.SGD(net.parameters(), 0.1)\nloss.backward()\n"
        "for p in net.parameters():\n    if p.grad is not None:\n        print(p.grad)\nopt.step()\n"
    )
    after = lines(text)
    for line in ("x[0] = 2  # row", "x[1] = x[1].mul_(2).add_(1)", "rows[0] = rows[0].zero_()", "\nnet[0].",
                 "if opt.has_grad(p):", "print(p.opt_grad(opt))"):  # fmt: skip
        assert line in after
