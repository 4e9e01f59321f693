"""``metafuse.code`` from end to end: forms, results, gradients, numbers, options and mistakes."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import metafuse as mf
from metafuse.config import flag_scope
from metafuse.errors import (
    ArgumentError,
    BackendError,
    CompileError,
    DTypeError,
    KernelError,
    MetafuseError,
    ShapeError,
)
from metafuse.graph.node import leaf
from metafuse.runtime import executor
from metafuse.runtime.kernels import statistics
from metafuse.testing import check_grads
from metafuse.var import wrap

pytestmark = pytest.mark.compiler
RNG = np.random.default_rng(11)
LOOP = "for (int i = 0; i < in0_shape0; i++) "


@pytest.fixture(autouse=True)
def on_the_cpu():
    mf.sync_all()
    with flag_scope(backend="cpu"):
        yield
        gc.collect()  # the frames of expected failures hold what failed
        mf.sync_all()


def array(*shape: int) -> mf.Var:
    return mf.array(RNG.standard_normal(shape).astype(np.float32))


# -- several results ------------------------------------------------------------------------------------------------
MINMAX = """
@out0(0) = @out1(0) = @in0(0);
for (int i = 0; i < in0_shape0; i++) {
    @out0(0) = std::min(@out0(0), @in0(i));
    @out1(0) = std::max<double>(@out1(0), @in0(i));
    @out2(i) = i * 10;
    @out3(i, 0) = @in0(i) > 0;
}
"""


def test_several_results_of_several_types_beside_other_operators():
    x = array(7)
    low, high, tens, signs = mf.code(
        [[1], (1,), [7], [7, 1]], ["float32", "float64", "int64", "bool"], [x * 2], cpu_src=MINMAX
    )  # fmt: skip
    value = x.numpy() * 2
    assert [str(v.dtype) for v in (low, high, tens, signs)] == ["float32", "float64", "int64", "bool"]
    assert (low + high).numpy() == value.min() + np.float64(value.max())
    assert tens.numpy().tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert np.array_equal(signs.numpy(), (value > 0)[:, None])


def test_results_may_be_empty_and_some_need_not_be_wanted():
    x = array(3)
    a, empty, b = mf.code(
        [[3], [0, 4], [3]], "float32", [x], cpu_src=LOOP + "{ @out0(i) = i; @out2(i) = @in0(i); }"
    )
    del a
    assert empty.numpy().shape == (0, 4)
    assert np.array_equal(b.numpy(), x.numpy())


def test_other_extents_and_numbers_need_no_other_code():
    def twice(n: int, factor: float) -> mf.Var:
        a, b = mf.code([[n], [n]], ["float32"] * 2, [mf.ones(n)], cpu_src=LOOP + '@out1(i) = @out0(i) = data["factor"];',
                       data={"factor": factor})  # fmt: skip
        return a + b

    twice(3, 1.0).sync()
    before = statistics.compilations
    assert twice(50, 2.5).numpy().tolist() == [5.0] * 50
    assert statistics.compilations <= before + 1  # the sum, where it was not there


def test_compiled_functions_replay_code_with_other_numbers():
    total = mf.zeros(4)
    x = mf.array(np.arange(4, dtype=np.float32))

    @mf.compile
    def step(v: mf.Var, k: float) -> mf.Var:
        a, b = mf.code(
            [[4], [4]],
            ["float32", "int32"],
            [v],
            LOOP + '{ @out0(i) = @in0(i) * data["k"]; @out1(i) = i; }',
            data={"k": k},
        )
        mf.code([v], [total], LOOP + "@out(i) += @in0(i);")
        return a + b

    for t in range(6):
        value = np.arange(4) + t
        np.testing.assert_allclose(
            step(x + t, 2 + t / 2).numpy(), value * (2 + t / 2) + np.arange(4), rtol=1e-6
        )
    assert step.replayed > 0
    np.testing.assert_allclose(total.numpy(), 6 * np.arange(4) + 15)


def test_a_profile_has_rows_for_code_without_the_compilers_time():
    x = array(50)
    with mf.profile_scope() as table:
        mf.code([50], "float32", [x], LOOP + "@out(i) = @in0(i) + 0.123456;").sync()
        mf.code([-50], "float32", [x], "out->set_shape({7});")
    rows = [row for row in table if row[0] == "code"]
    assert len(rows) == 2 and all("test_code.py" in row[1] and float(row[3]) < 0.05e9 for row in rows)


def test_names_of_the_forms():
    x = array(4)
    (a,) = mf.code(shapes=[[4]], dtypes=["float32"], inputs=[x], cpu_src=LOOP + "@out(i) = @in0(i);")
    b = mf.code(shape=[4], dtype="float32", inputs=[x], cpu_src=LOOP + "@out(i) = @in0(i);")
    assert np.array_equal(a.numpy(), x.numpy()) and np.array_equal(b.numpy(), x.numpy())


# -- dynamic extents ------------------------------------------------------------------------------------------------
POSITIVE = """
int n = 0;
for (int i = 0; i < in0_shape0; i++)
    if (@in0(i) > 0) {
        @out0(n) = @in0(i);
        @out1(n, 0) = i, @out1(n, 1) = -i;
        n++;
    }
out0->set_shape({n});
out1->set_shape({n, 2});
@out2(0) = n;
"""
SCATTERED = LOOP + "@out(i) = 0;\nfor (int k = 0; k < pout1_shape0; k++) @out(@pout1(k, 0)) = @dout(k);"


def test_results_whose_number_of_rows_the_values_decide():
    x = array(100)
    values, places, count = mf.code([[-100], [-100, 2], [1]], ["float32", "int32", "int64"], [x], cpu_src=POSITIVE,
                                    cpu_grad_src=[SCATTERED])  # fmt: skip
    kept = x.numpy()[x.numpy() > 0]
    assert values.shape == kept.shape and places.shape == (len(kept), 2)
    assert np.array_equal(values.numpy(), kept)
    assert count.item() == len(kept)
    assert np.array_equal(places.numpy()[:, 1], -np.flatnonzero(x.numpy() > 0))
    expected = np.where(x.numpy() > 0, 2 * x.numpy(), 0)
    np.testing.assert_allclose(mf.grad((values * values).sum(), x).numpy(), expected, rtol=1e-6)


def test_much_unused_room_is_given_back():
    n = 1 << 16
    none = mf.code([-n, 8], "float64", [], cpu_src="out->set_shape({0, 8});")
    assert none.shape == (0, 8) and none._node.buffer.nbytes < 100
    most = mf.code([-n, 8], "float64", [], cpu_src="out->set_shape({out_shape0 - 1, 8}); @out(0, 0) = 5;")
    assert most.shape == (n - 1, 8) and most.numpy()[0, 0] == 5


def test_dynamic_and_static_code_see_row_major_data():
    value = RNG.standard_normal((5, 3)).astype(np.float32)
    source = "for (int i = 0; i < 5; i++) for (int j = 0; j < 3; j++) out_p[i * 3 + j] = in0_p[i * in0_stride0 + j];"
    for extent in (5, -5):
        spec = mf.array(value)._node.spec
        buffer = executor.upload(np.ascontiguousarray(value.T), spec)
        buffer.order = (1, 0)
        x = wrap(leaf(spec, buffer, False))
        assert np.array_equal(mf.code([extent, 3], "float32", [x], cpu_src=source).numpy(), value)


def test_code_that_changes_a_declared_extent_says_so():
    for shapes, dtypes in (([3], "float32"), ([[3], [3]], ["float32", "float32"])):
        with pytest.raises(ShapeError, match=r"shape \[2\] of out0, declared was \[3\]"):
            mf.sync(mf.code(shapes, dtypes, [], cpu_src="out0->set_shape({2});") if len(shapes) > 1 else
                    [mf.code(shapes, dtypes, [], cpu_src="out0->set_shape({2});")])  # fmt: skip
    with pytest.raises(ShapeError, match="of out1"):
        mf.code([[-3], [3]], "float32", [], cpu_src="out0->set_shape({2}); out1->set_shape({2});")


# -- in place -------------------------------------------------------------------------------------------------------
def test_outputs_that_exist_begin_as_what_they_hold():
    x, total, count = array(4), mf.ones(4), mf.array([7])
    before = total + 0.5
    answer = mf.code([x], [total, count], cpu_src=LOOP + "{ @out0(i) += @in0(i); @out1(0)++; }")
    assert answer[0] is total and answer[1] is count and total._node.buffer is None
    np.testing.assert_allclose(total.numpy(), x.numpy() + 1, rtol=1e-6)
    assert count.numpy().tolist() == [11]
    assert before.numpy().tolist() == [1.5] * 4  # values that were taken before stay what they were
    mf.code(inputs=[x], outputs=[total], cpu_src=LOOP + "if (i % 2) @out(i) = 0;")
    np.testing.assert_allclose(total.numpy(), [x.numpy()[0] + 1, 0, x.numpy()[2] + 1, 0], rtol=1e-6)


def test_in_place_keeps_who_is_trained_and_takes_gradients():
    x, kept = array(3), mf.ones(3)
    kept.start_grad()
    mf.code([x], [kept], LOOP + "@out(i) *= @in0(i);")
    assert kept.requires_grad
    changed = mf.ones(3)
    mf.code([x], [changed], LOOP + "@out(i) += 3 * @in0(i);", [LOOP + "@out(i) = 3 * @dout(i);"])
    assert mf.grad(changed.sum(), x).numpy().tolist() == [3, 3, 3]
    assert mf.grad((kept * kept).sum(), kept).numpy() == pytest.approx(2 * x.numpy(), rel=1e-6)


def test_in_place_mistakes():
    x, y = array(3), array(3)
    for call, error, words in [
        (lambda: mf.code([x], [y, y], ";"), ArgumentError, "twice"),
        (lambda: mf.code([x], [y], ";", "header"), ArgumentError, "name what follows"),
        (lambda: mf.code([x], [y], [x], ";"), ArgumentError, "given twice"),
        (
            lambda: mf.code(inputs=[x], outputs=y, cpu_src=";"),
            DTypeError,
            "list of Vars that the snippet changes",
        ),
        (lambda: mf.code(inputs=[x], outputs=[np.ones(3)], cpu_src=";"), DTypeError, "list of Vars"),
    ]:
        with pytest.raises(error, match=words):
            call()


# -- gradients ------------------------------------------------------------------------------------------------------
SINCOS = "for (int i = 0; i < in0_shape0; i++) { @out0(i) = std::sin(@in0(i)); @out1(i) = std::cos(@in0(i)) * @in1(i); }"
SLOPES = [
    """
    for (int i = 0; i < in0_shape0; i++)
        if (data["out_index"] == 0) @out(i) = @dout(i) * std::cos(@in0(i));
        else @out(i) = -@dout(i) * @pout0(i) * @in1(i);
    """,
    """
    for (int i = 0; i < in0_shape0; i++)
        @out(i) = data["out_index"] ? @dout(i) * std::cos(@in0(i)) : 0 * @pout(i);
    """,
]


def test_gradients_of_several_results():
    def function(x, y):
        a, b = mf.code([[3], [3]], ["float64"] * 2, [x, y], cpu_src=SINCOS, cpu_grad_src=SLOPES)
        return a * b + b

    check_grads(function, [RNG.standard_normal(3), RNG.standard_normal(3)])


def test_only_results_that_are_needed_are_differentiated():
    x, y = array(3), array(3)
    a, b = mf.code(
        [[3], [3]], ["float32"] * 2, [x, y], cpu_src=SINCOS, cpu_grad_src=[*SLOPES[:1], "no C++ at all;"]
    )
    assert np.allclose(mf.grad(a.sum(), x).numpy(), np.cos(x.numpy()))
    with pytest.raises(CompileError, match=r"cpu_grad_src\[1\]:1"):
        mf.grad(b.sum(), y).sync()


def test_gradients_have_their_own_header_or_share_it():
    x = array(3)
    header = "template <class T> T twice(T x) { return 2 * x; }\n@alias(x, in0)"
    y = mf.code(
        [3], "float32", [x], LOOP + "@out(i) = twice(@x(i));", [LOOP + "@out(i) = twice(@dout(i));"], header
    )
    assert mf.grad(y.sum(), x).numpy().tolist() == [2, 2, 2]
    y = mf.code([3], "float32", [x], LOOP + "@out(i) = twice(@x(i));", [LOOP + "@out(i) = K;"], header,
                cpu_grad_header="static const float K = 5;")  # fmt: skip
    assert mf.grad(y.sum(), x).numpy().tolist() == [5, 5, 5]


def test_integers_have_no_gradient():
    x, k = array(3), mf.array([1, 2, 3])
    a, b = mf.code([[3], [3]], ["float32", "int32"], [x, k], cpu_src=LOOP + "{ @out0(i) = @in0(i) * @in1(i); @out1(i) = 1; }",
                   cpu_grad_src=[LOOP + "@out(i) = @dout(i) * @in1(i);", "nothing at all"])  # fmt: skip
    assert mf.grad(a.sum(), x).numpy().tolist() == [1, 2, 3]
    assert not b.requires_grad


# -- types ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_floats_of_16_bits(dtype):
    kind = mf.as_dtype(dtype)
    every = np.arange(1 << 16, dtype=np.uint16)
    held = kind.decode(every.view(kind.storage))
    x = mf.array(held.astype(np.float32)).cast(dtype)
    wide = mf.code([1 << 16], "float32", [x], cpu_src=LOOP + "@out(i) = @in0(i);").numpy()
    np.testing.assert_array_equal(wide, held.astype(np.float32))
    numbers = np.concatenate(
        [RNG.standard_normal(5000) * 10.0 ** RNG.integers(-9, 6, 5000), [0, -0.0, np.inf, -np.inf, np.nan]]
    )
    numbers = numbers.astype(np.float32)
    y = mf.code(
        [len(numbers)],
        dtype,
        [mf.array(numbers)],
        cpu_src=LOOP + "{ @out(i) = @in0(i); @out(i) *= 2; @out(i) -= @in0(i); }",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        doubled = kind.convert(kind.convert(numbers).astype(np.float32) * 2)
        expected = kind.convert(doubled.astype(np.float32) - numbers)
    np.testing.assert_array_equal(y.numpy(), expected)


def test_limits_of_floats_of_16_bits():
    source = """
    typedef numeric_limits<out_type> limits;
    @out(0) = limits::max(); @out(1) = limits::lowest(); @out(2) = limits::epsilon(); @out(3) = limits::min();
    @out(4) = -limits::infinity();
    """
    for dtype in ("float16", "bfloat16"):
        limits = mf.finfo(dtype)
        expected = [limits.max, limits.min, limits.eps, limits.tiny, -np.inf]
        assert mf.code([5], dtype, [], cpu_src=source).numpy().tolist() == [float(v) for v in expected]


# -- the language ---------------------------------------------------------------------------------------------------
def test_macros_comments_and_helpers():
    x = array(4, 3)
    y = mf.code(
        [4], "float32", [x],
        cpu_header="""
        // the sum of a row; @nothing here is a macro
        static float row(@ARGS_DEF, int i) { @PRECALC float sum = 0; @for(j, 0, 3, sum += @in0(i, @j);) return sum; }
        """,
        cpu_src="""
        @alias(x, in0)
        @define(LAST, @{x_dim + 1})
        #ifdef JIT_cpu
        for (int i = 0; i < x_shape0; i++) {
            @out(i) = @if(LAST == 3, row(@ARGS, i), 0); /* @not a macro */
            @out(i) = @expand_op(maximum, @out_type, @out(i), @out_type, @x(i, 0), @x_type);
        }
        #endif
        """,
    )  # fmt: skip
    value = x.numpy()
    np.testing.assert_allclose(y.numpy(), np.maximum(value.sum(1), value[:, 0]), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("add", np.add), ("subtract", np.subtract), ("multiply", np.multiply), ("divide", np.divide), ("mod", np.mod),
        ("floor_divide", np.floor_divide), ("pow", np.power), ("maximum", np.maximum), ("minimum", np.minimum),
        ("less", np.less), ("logical_xor", np.logical_xor),
    ],
)  # fmt: skip
def test_operators_by_name(name, oracle):
    x, y = np.array([3.5, 1.0, 0.0, 2.0]), np.array([2.0, 3.0, 1.5, 2.0])
    source = LOOP + f"@out(i) = @expand_op({name}, double, @in0(i), @in0_type, @in1(i), @in1_type);"
    with flag_scope(auto_convert_64_to_32=0):
        z = mf.code([4], "float64", [mf.array(x), mf.array(y)], cpu_src=source)
    np.testing.assert_allclose(z.numpy(), oracle(x, y).astype(np.float64))


def test_folds_by_name():
    x = np.array([3, -5, 2], np.int32)
    source = (
        "@out(0) = @expand_op(init_maximum, int32); "
        + LOOP
        + "@out(0) = @expand_op(maximum, int32, @out(0), int32, @in0(i), int32);"
    )
    assert mf.code([1], "int32", [mf.array(x)], cpu_src=source).item() == 3
    with pytest.raises(ArgumentError, match="no operator 'frobnicate' of 2 operands"):
        mf.code([1], "int32", [], cpu_src="@out(0) = @expand_op(frobnicate, int, a, int, b, int);").sync()


# -- headers and options ----------------------------------------------------------------------------------------------
def test_files_of_the_user_are_found_and_their_changes_seen(tmp_path):
    (tmp_path / "mine.h").write_text('#include "other.h"\nstatic int number() { return OTHER; }\n')

    def number() -> int:
        executor.device().kernels.snippets.clear()  # as in another process
        return mf.code([1], "int32", [], cpu_header='#include "mine.h"', cpu_src="@out(0) = number();",
                       compile_options={f"FLAGS: -I{tmp_path}": 1}).item()  # fmt: skip

    for value in (3, 4):
        (tmp_path / "other.h").write_text(f"#define OTHER {value}\n")
        assert number() == value


def test_libraries_and_definitions(backend, tmp_path):
    import subprocess

    from metafuse_backend_cpu import compiler

    library = tmp_path / "libthrice.so"
    subprocess.run(
        [*compiler.toolchain().command, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(library)],
        input=b'extern "C" int thrice(int x) { return 3 * x; }', check=True,
    )  # fmt: skip
    header, source = 'extern "C" int thrice(int);', "@out(0) = thrice(N);"
    for flags in (f"-L{tmp_path} -lthrice -Wl,-rpath,{tmp_path}", str(library)):
        options = {f"FLAGS: -DN=14 {flags}": 1, "FLAGS: -no-such-option": 0}
        assert (
            mf.code([1], "int32", [], cpu_header=header, cpu_src=source, compile_options=options).item() == 42
        )
    with flag_scope(compile_options={"FLAGS: -DN=5": 1, "parallel": 2}):
        assert mf.code([1], "int32", [], cpu_src="@out(0) = N;").item() == 5
    var = mf.code([[1], [1]], "int32", [], cpu_src="@out0(0) = N;")[0]
    var.compile_options = {"FLAGS: -DN=6": 1}
    assert var.item() == 6 and var.compile_options == {"FLAGS: -DN=6": 1}


def test_wrong_options():
    for options, error, words in [
        ({"FLAGS: -o x": 1}, ArgumentError, "can't be given '-o'"),
        ({"parallel": 1}, ArgumentError, "unknown entry 'parallel'"),
        ({"FLAGS: 'a": 1}, ArgumentError, "can't be split"),
        (["-lz"], DTypeError, "must be a dict"),
    ]:
        with pytest.raises(error, match=words):
            mf.code([1], "int32", [], cpu_src=";", compile_options=options)


# -- mistakes ---------------------------------------------------------------------------------------------------------
def test_a_wrong_snippet_shows_its_own_line_and_the_callers():
    wrong = mf.code(
        [2], "float32", [], cpu_src="int a = 1;\n@for(k, 0, 2,\n  @out(@k) = a;)\n@out(0) = typo;\n"
    )
    with pytest.raises(CompileError, match=r"cpu_src:4:.*typo(.|\n)*recorded at .*test_code\.py"):
        wrong.sync()
    del wrong
    wrong = mf.code(
        [2],
        "float32",
        [],
        cpu_header="#include <vector>\nint f() { return nothing; }",
        cpu_src="@out(0) = f();",
    )
    with pytest.raises(CompileError, match="cpu_header:2:.*nothing"):
        wrong.sync()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"cpu_src": "\n@out(0) = @in1(0);"}, "cpu_src line 2, column 11: unknown macro @in1; did you mean @in0"),
        ({"cpu_src": "@out(0) = @in0(0, 0);"}, "cpu_src line 1, column 11: @in0 takes 1 indices: 2 given"),
        ({"cpu_src": "@out(0, 0) = 1;"}, "@out takes 1 indices: 2 given"),
        ({"cpu_src": "@out(0) = @in0(0;"}, "not closed"),
        ({"cpu_src": "@out(0) = 1; /* open"}, "this comment is not closed"),
        ({"cpu_src": '@out(0) = data["k"];'}, r"cpu_src reads data\['k'\], which is missing"),
        ({"cpu_src": "@out(0) = f();", "cpu_header": "int f() { return @x(0); }"}, "cpu_header line 1.*unknown macro @x"),
        ({"cpu_src": "@out(0) = 1;", "cpu_grad_src": ["@out(0) = @dout(0) * @in3(0);"]}, r"cpu_grad_src\[0\].*@in3"),
        ({"cpu_src": "@out(0) = 1;", "cpu_grad_src": ["@out(0) = @dout(0, 0);"]}, "@dout takes 1 indices"),
        ({"cpu_src": "@out(0) = 1;", "cpu_grad_src": ['@out(0) = data["out"];']}, r"data\['out'\].*'out_index'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [[3], [-3]])
def test_mistakes_that_need_no_compiler_are_told_when_code_is_called(shape, texts, words):
    compilations = statistics.compilations
    for _ in range(2):
        with pytest.raises(ArgumentError, match=words):
            mf.code(shape, "float32", [array(3)], **texts)
    assert statistics.compilations == compilations
    x = array(3)
    with pytest.raises(ArgumentError, match="unknown macro @in1"):
        mf.code([], [x], "@out(0) = @in1(0);")
    assert x.shape == (3,)


def test_explain_shows_the_source():
    text = mf.explain(mf.code([3], "float32", [array(3)], cpu_src=LOOP + "@out(i) = @in0(i);"))
    assert text.kernels == ("code",)
    assert "@out(i) = @in0(i);" in text


def test_a_backend_without_snippets_says_so_when_code_is_called():
    with flag_scope(backend="reference"), pytest.raises(BackendError, match="run C.. snippets"):
        mf.code([3], "float32", [array(3)], cpu_src="@out(0) = 1;")


def test_what_a_snippet_throws_is_told_and_nothing_is_lost():
    x = array(3)
    failing = mf.code([3], "float32", [x], cpu_src='if (data["fail"]) throw std::runtime_error("broken"); @out(0) = 1;',
                      data={"fail": 1})  # fmt: skip
    with pytest.raises(KernelError, match=r"broken(.|\n)*test_code\.py"):
        failing.sync()
    with pytest.raises(KernelError, match="broken"):
        mf.code([-3], "float32", [x], cpu_src='throw std::runtime_error("broken");')
    del failing
    assert (x + x).numpy() == pytest.approx(2 * x.numpy())


def test_arguments_are_checked_when_it_is_called():
    x = array(3)
    for call, error, words in [
        (lambda: mf.code([3], "float32", x, ";"), DTypeError, "list of Vars"),
        (lambda: mf.code([3], ["float32", "int32"], [x], ";"), ArgumentError, "1 shapes and 2 dtypes"),
        (lambda: mf.code([[3], [3]], ["float32"], [x], ";"), ArgumentError, "2 shapes and 1 dtypes"),
        (lambda: mf.code([3, -1], "float32", [x], ";"), ShapeError, "only the first extent"),
        (lambda: mf.code(["a"], "float32", [x], ";"), DTypeError, "an extent must be an integer"),
        (lambda: mf.code([3], "float32", [x], 5), DTypeError, "cpu_src must be a string"),
        (lambda: mf.code([3], "float32", [x]), ArgumentError, "cpu_src is empty"),
        (lambda: mf.code([3], None, [x], ";"), DTypeError, "dtype"),
        (lambda: mf.code([3], "float32", [x], ";", "text"), DTypeError, "list of strings"),
        (lambda: mf.code([3], "float32", [x], ";", [";", ";"]), ArgumentError, r"per input \(1\)"),
        (lambda: mf.code([3], "float32", [x], ";", [5]), DTypeError, r"cpu_grad_src\[0\]"),
        (lambda: mf.code([3], "float32", [x], ";", data={"k": "5"}), DTypeError, "names to numbers"),
        (lambda: mf.code([3], "float32", [x], "@in1(0)").sync(), ArgumentError, "unknown macro @in1"),
    ]:
        with pytest.raises(error, match=words) as caught:
            call()
        assert isinstance(caught.value, MetafuseError)


def test_a_source_for_another_language_only():
    x = array(3)
    for extent in (3, -3):
        with pytest.raises(BackendError, match="'cpu' needs cpu_src, there is cuda_src only"):
            mf.code([extent], "float32", [x], cuda_src="@out(0) = 1;").sync()


def test_numbers_stand_beside_those_of_other_operators():
    x = array(3)
    y = mf.code(
        [3],
        "float32",
        [x * 3],
        cpu_src=LOOP + '@out(i) = @in0(i) * data["k"] + data["m"];',
        data={"k": np.float32(2), "m": 7},
    )
    z = (y * 5).clamp(-1e9, 1e9) + 4
    np.testing.assert_allclose(z.numpy(), (x.numpy() * 6 + 7) * 5 + 4, rtol=1e-5)
