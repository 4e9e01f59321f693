"""The table against reality: every target exists, every parameter that a rule names is one, nothing is said twice."""

from __future__ import annotations

import inspect
import re

import pytest

from metafuse_converter import lookup, tables
from metafuse_converter.lookup import TABLE, Answer
from metafuse_converter.special import SPECIAL

KINDS = (
    "tensor",
    "module",
    "optimizer",
    "parallel",
    "scaler",
    "loader",
    "distsampler",
    "device",
    "generator",
)
#: rules whose arguments a special function orders by itself
FREE = {"loader", "network", "clip", "extreme", "norm", "all_reduce", "autocast", "meshgrid", "buffer"}


def answers():
    for name in TABLE:
        kind, _, last = name.rpartition(".")
        yield name, (lookup.method(kind, last) if kind in KINDS else lookup.find(name))


ANSWERS = dict(answers())
OFFERED = [name for name, answer in ANSWERS.items() if isinstance(answer, Answer) and answer.path is not None]


@pytest.mark.parametrize("name", OFFERED)
def test_what_a_rule_leads_to_exists_and_takes_what_it_says(name):
    answer = ANSWERS[name]
    lookup.resolve(answer.path)
    own = lookup.own_parameters(answer.path)
    rule = answer.rule
    if own is None or rule.special in FREE:
        return
    known = {p.name for p in own}
    gathers = any(p.gathers for p in own)
    assert gathers or set(rule.renames.values()) <= known
    assert gathers or set(rule.added) <= known
    theirs = {p.name for p in answer.parameters or ()}
    assert not theirs or set(rule.renames) <= theirs, "renames something that is no parameter"


def test_every_rule_is_an_answer():
    assert [name for name, answer in ANSWERS.items() if answer is None] == []
    silent = [n for n, a in ANSWERS.items() if a is not None and not a.offered and not a.rule.why]
    assert silent == []


def test_special_functions_exist_and_are_used():
    used = {rule.special for rule in TABLE.values() if rule.special}
    assert used == set(SPECIAL)


def test_templates_name_parameters():
    for name, rule in TABLE.items():
        if rule.template and ANSWERS[name].parameters is not None and not rule.special:
            wanted = set(re.findall(r"\{(\w+)\}", rule.template)) - {"mf", "self"}
            assert wanted <= {p.name for p in ANSWERS[name].parameters}, name


def test_rules_say_something():
    """A rule that says what is found without it is not needed."""
    idle = []
    for name, answer in ANSWERS.items():
        rule = answer.rule
        if rule == type(rule)(target=""):
            idle.append(name)
    assert idle == []


def test_every_home_is_a_module():
    for module, homes in lookup.HOMES.items():
        for home in homes:
            assert home == "" or inspect.ismodule(lookup.resolve(home)), (module, home)


def test_the_published_table():
    rows = list(tables.rows())
    states = [row.state for row in rows]
    assert set(states) == set(tables.STATES)
    assert len({(r.module, r.name) for r in rows}) == len(rows) > 1500
    found = {(r.module, r.name): (r.state, r.how) for r in rows}
    assert found["torch", "abs"] == ("same", "`abs`")
    assert found["torch", "cat"] == ("renamed", "`concat`")
    assert found["torch.nn", "Dropout"] == ("arguments changed", "`nn.Dropout`")
    assert found["torch.nn", "Conv2d"][0] == "same"
    assert found["torch.nn", "AdaptiveLogSoftmaxWithLoss"][0] == "not offered"
    assert all(row.how for row in rows)


#: what scripts are written with; none of these may be lost
COMMON = """
torch: tensor zeros ones cat stack randn arange matmul einsum no_grad save load device manual_seed max argmax sum mean sigmoid tanh exp where vstack hstack dstack fmod Generator
torch.nn: Module Linear Conv2d BatchNorm2d ReLU Dropout Sequential ModuleList Embedding LSTM GRU LayerNorm CrossEntropyLoss MSELoss MaxPool2d
 AdaptiveAvgPool2d ConvTranspose2d MultiheadAttention TransformerEncoderLayer TransformerEncoder Transformer TransformerDecoder Parameter Identity GELU Sigmoid BCEWithLogitsLoss DataParallel UpsamplingBilinear2d
torch.nn.functional: relu softmax cross_entropy mse_loss dropout interpolate pad max_pool2d adaptive_avg_pool2d one_hot normalize gelu
torch.nn.init: kaiming_normal_ xavier_uniform_ constant_ normal_ zeros_ ones_ trunc_normal_
torch.optim: SGD Adam AdamW RMSprop Adagrad Adamax NAdam RAdam
torch.nn.utils: clip_grad_norm_ clip_grad_value_
torch.optim.lr_scheduler: StepLR MultiStepLR CosineAnnealingLR LambdaLR OneCycleLR ReduceLROnPlateau
torch.utils.data: DataLoader Dataset TensorDataset Subset random_split ConcatDataset
torch.fft: fft ifft rfft irfft fft2
torch.distributed: init_process_group get_rank get_world_size barrier all_reduce
torch.nn.parallel: DistributedDataParallel
torch.amp: autocast GradScaler
"""


@pytest.mark.parametrize(
    "line", re.sub(r"\n ", " ", COMMON.strip()).splitlines(), ids=lambda text: text.partition(":")[0]
)
def test_common_names_are_converted(line):
    module, _, names = line.partition(": ")
    assert [n for n in names.split() if not lookup.find(f"{module}.{n}").offered] == []
