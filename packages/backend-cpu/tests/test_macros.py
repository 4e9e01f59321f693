"""Macros of snippets: what they expand to, that lines stay where they were, and what is said about mistakes."""

from __future__ import annotations

import pytest

from metafuse.errors import ArgumentError
from metafuse_backend_cpu.integer_expression import evaluate
from metafuse_backend_cpu.macros import Scope, declare, expand


def scope() -> Scope:
    made = Scope({}, {"JIT_cpu": "1"})
    declare(made, "in0", "in0", 3, "float32")
    declare(made, "in1", "in1", 1, "int32")
    declare(made, "out0", "out0", 2, "float64")
    declare(made, "out", "out0", 2, "float64")
    return made


def expanded(text: str, names: Scope | None = None) -> str:
    return expand(text, "cpu_src", names or scope())


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("x = 1;", "x = 1;"),
        ("@in0(i, j, k)", "in0_p[(i)*in0_stride0+(j)*in0_stride1+(k)]"),
        ("@out(i+1,j)", "out0_p[(i+1)*out0_stride0+(j)]"),
        ("@in1(f(a, b)[2])", "in1_p[(f(a, b)[2])]"),
        ("@in1(@in1(i))", "in1_p[(in1_p[(i)])]"),
        ('@in1(g(")", \')\', "\\""))', 'in1_p[(g(")", \')\', "\\""))]'),
        ("@in1(x[{1, 2}[0]])", "in1_p[(x[{1, 2}[0]])]"),
        ("@in0_type x;", "float32 x;"),
        ("@in0_shape1 + @out_stride0", "in0_shape1 + out0_stride0"),
        ("@{1 + 2*3}", "7"),
        ("i@{in0_dim-1}", "i2"),
        ("@(a, @in1(i))", "a, in1_p[(i)]"),
        ("@JIT_cpu@@_x", "1_x"),
        ("@for(i, 0, 3, a@i = @{i*i};)", " a0 = 0; a1 = 1; a2 = 4;"),
        ("@for(i, 3, 0, -1, a@i;)", " a3; a2; a1;"),
        ("@for(i,0,2,int x@i = 1, y@i = 2;)", "int x0 = 1, y0 = 2;int x1 = 1, y1 = 2;"),
        ("@for(i,0,2,2,f(a, b), @i)", "f(a, b), 0"),
        ("@for(i,0,2,@for(j,0,2,x@i@j))", "x00x01x10x11"),
        ("@for(i,0,@{1+1},x@i)", "x0x1"),
        ("@if(in0_dim == 3, yes, no)", " yes"),
        ("@if(in0_dim < 3 || 0, yes, no)", " no"),
        ("@if(0, yes)", ""),
        ("@if(@is_def(JIT_cuda), cuda, cpu)", " cpu"),
        ("@is_def(JIT_cpu)@is_def(in0)@is_def(in7)", "110"),
        ("@if(@strcmp(@in0_type, float32)==0, single, double)", " single"),
        ("@strcmp(a,b) @strcmp(b, a)", "-1 1"),
        ("@if(1, { f(a, b); }, g)", " { f(a, b); }"),
        ("@if(1, for (;;) {, x)", " for (;;) {"),
        ("@expand_op(add, float, @in1(i), int, b, float)", "(float)((float)(in1_p[(i)]) + (float)(b))"),
        ("@expand_op(exp, double, x, float)", "(double)(std::exp(x))"),
        ("@expand_op(init_multiply, int)", "(int)(1)"),
        ("@alias(a, in0)@a(i,j,k) @a_type", "in0_p[(i)*in0_stride0+(j)*in0_stride1+(k)] float32"),
        ("@alias(o, out)@o(i,j) @{o_dim}", "out0_p[(i)*out0_stride0+(j)] 2"),
        ('"@in0" // @foo\n/* @bar */ \'@\' R"x(@)" @)x"', '"@in0" // @foo\n/* @bar */ \'@\' R"x(@)" @)x"'),
        ("1'000'000 + @in1(0)", "1'000'000 + in1_p[(0)]"),
        ("#error don't\n@in1(0)", "#error don't\nin1_p[(0)]"),
    ],
)
def test_expansion(text, result):
    assert expanded(text) == result


def test_define():
    text = expanded("@define(N, @{in0_dim + 1})\nint x[N] = {@N, @{N * 2}};\n@if(@is_def(N), yes)")
    assert "#define N 4\n" in text
    assert "\nint x[N] = {4, 8};\n yes" in text


def test_define_of_several_lines_continues_them():
    text = expanded("@define(BODY, a;\n  b;)\n@BODY")
    assert "#define BODY a; \\\n" in text
    assert text.rstrip().endswith("a;\n  b;")


def test_expand_macro():
    text = "#define pick(x, y) @in1(x) + (y)\n#define plain @in1(9)\n@expand_macro(pick, i*2, @in1(j)) @expand_macro(plain)"
    assert expanded(text).split("\n")[2] == "in1_p[(i*2)] + (in1_p[(j)]) in1_p[(9)]"


def test_header_and_source_share_aliases_and_definitions():
    names = scope()
    expanded("@alias(a, in1)\n#define twice(x) x + x", names)
    assert expanded("@a(i) @expand_macro(twice, y)", names) == "in1_p[(i)] y + y"
    assert names.aliases["a"].canonical == "in1"


def line_numbers(text: str) -> dict[str, int]:
    """The line that a compiler would name for every word ``L<number>`` of an expansion."""
    found: dict[str, int] = {}
    number = 1
    for line in text.split("\n"):
        if line.startswith("#line"):
            number = int(line.split()[1])
            continue
        for word in line.replace("(", " ").replace(")", " ").replace(";", " ").split():
            if word.startswith("L") and word[1:].isdigit():
                found[word] = number
        number += 1
    return found


def test_lines_stay_where_they_were():
    text = "\n".join(
        [
            "L1; @in0(i,",  # 1
            "  j,",
            "  k); L3",
            "L4; @for(i, 0, 3,",
            "   L5;",
            "   x;",
            ") L7",
            "@alias(a,",
            " in1) L9",
            "@define(N, 1)",
            "L11",
            "@if(0,",
            " x,",
            " y) L14",
            "@for(i, 0, 40, x;) L15",
            "L16",
        ]
    )
    found = line_numbers(expanded(text))
    assert found == {word: int(word[1:]) for word in found}
    assert len(found) == 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x\n  @foo(1)", "cpu_src line 2, column 3: unknown macro @foo"),
        ("@in2(1)", "did you mean @in"),
        ("@nothing_like_it", "arrays here: in0, in1, out0, out"),
        ("a @in0(1, (2, 3)", r"line 1, column 7: this '\(' is not closed"),
        ("@{1 + 2", "this '{' is not closed"),
        ("/* @in0(", "comment is not closed"),
        ("@in0(i, j)", "takes 3 indices: 2 given"),
        ("@in1()", "takes 1 indices: 0 given"),
        ("@in1(i,)", "takes 1 indices: 1 given"),
        ("@ x", "must follow '@'"),
        ("x @", "must follow '@'"),
        ("@for(i, 0, 3)", "@for takes a name"),
        ("@for(1, 0, 3, x)", "can't name a @for variable"),
        ("@for(i, 0, 3, 0, x)", "steps"),
        ("@for(i, 0, 1000000, x)", "too many steps"),
        ("@for(i, 0, n, x)", "'n' is no integer expression: unknown name 'n'"),
        ("@if(1)", "takes 2 to 3 arguments: 1 given"),
        ("@if(1, a, b, c)", r"write @\(\.\.\.\) around"),
        ("@if", "must follow @if"),
        ("@{1 / 0}", "division by zero"),
        ("@{}", "ends too early"),
        ("@alias(a, nobody)", "there is no array 'nobody'"),
        ("@alias(1a, in0)", "can't be an alias"),
        ("@alias(a, in0) @alias(a, in1)", "already names in0"),
        ("@define(a b, 1)", "it is no name"),
        ("@expand_macro(nobody)", "defines no macro 'nobody'"),
        ("#define f(x) x\n@expand_macro(f)", "macro f takes 1 arguments: 0 given"),
        ("#define f @expand_macro(f)\n@expand_macro(f)", "nested deeper"),
        ("@expand_op(add, float, x, float)", "no operator 'add' of 1 operands"),
        ("@expand_op(add)", "the type of its result"),
        ("@python.jittor.auto_parallel(2) {}", "unknown macro @python"),
    ],
)
def test_mistakes(text, words):
    with pytest.raises(ArgumentError, match=words):
        expanded(text)


def test_a_mistake_is_shown():
    with pytest.raises(ArgumentError) as caught:
        expanded("int x;\n\tx = @in7(i);\nint y;")
    assert str(caught.value).split("\n")[1:] == ["        x = @in7(i);", "            ^"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("0x1F", 31), ("-7 / 2", -3), ("-7 % 2", -1), ("7 / -2", -3), ("2 + 3 * 4 - 1", 13), ("(2 + 3) * 4", 20),
        ("1 << 3 | 1", 9), ("5 & 3 ^ 1", 0), ("!0 && !(1 == 2)", 1), ("1 < 2 == 1", 1), ("3 >= 3", 1), ("~0", -1),
        ("1 ? 2 : 3", 2), ("0 ? 2 : 0 ? 3 : 4", 4), ("n + m", 7), ("- - 3", 3), ("8 >> 1 << 2", 16), ("10 - 3 - 2", 5),
    ],
)  # fmt: skip
def test_integer_expressions(text, value):
    assert evaluate(text, {"n": "3", "m": "n + 1"}) == value


@pytest.mark.parametrize(
    "text", ["", "1 +", "(1", "1)", "1 2", "a", "1.5", "f(1)", "1 ? 2", "1 << 99", "$", "n"]
)
def test_wrong_integer_expressions(text):
    with pytest.raises(ValueError, match="\\w"):
        evaluate(text, {"n": "n"})
