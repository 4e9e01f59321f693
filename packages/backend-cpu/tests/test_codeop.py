"""Users' snippets, compiled and run."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from metafuse.dtypes import DTYPES, as_dtype, float32, float64, int32
from metafuse.errors import ArgumentError, BackendError, CompileError, KernelError
from metafuse_backend_cpu.code_threads import threads

pytestmark = pytest.mark.compiler
RNG = np.random.default_rng(3)


@pytest.fixture
def run(backend, table):
    """run(source, inputs, outputs, ...): the outputs' arrays, cut to their final shapes. Outputs are (shape, dtype)."""

    def runner(source, inputs, outputs, data=None, header="", aliases=None, options=()):
        specs = [[(as_dtype(x.dtype), x.ndim) for x in inputs], [(as_dtype(d), len(s)) for s, d in outputs]]
        text = backend.emit_code("snippet", header, source, *specs, aliases, options)
        loaded = backend.load(backend.compile([text]), {"snippet": None})["snippet"]
        given = [(table.handles[table.add(x)], x.shape) for x in inputs]
        slots = [table.add(np.zeros(shape, as_dtype(dtype).numpy)) for shape, dtype in outputs]
        made = [(table.handles[slot], shape) for slot, (shape, _) in zip(slots, outputs, strict=True)]
        shapes = backend.launch_code(loaded, given, made, data or {})
        results = []
        for slot, shape in zip(slots, shapes, strict=True):
            results.append(table.get(slot).reshape(-1)[: int(np.prod(shape))].reshape(shape))
        return results

    return runner


def test_nearest_neighbours(run):
    """The k nearest of m points for each of n points: sorting, OpenMP, dynamic indices."""
    points, others, k = RNG.random((60, 3), np.float32), RNG.random((90, 3), np.float32), 5
    (found,) = run(
        """
        #pragma omp parallel for
        for (int i = 0; i < in0_shape0; ++i) {
            vector<pair<float, int>> order;
            for (int j = 0; j < in1_shape0; ++j) {
                float distance = 0;
                @for(c, 0, 3, distance += (@in0(i, @c) - @in1(j, @c)) * (@in0(i, @c) - @in1(j, @c));)
                order.emplace_back(distance, j);
            }
            partial_sort(order.begin(), order.begin() + out_shape1, order.end());
            for (int j = 0; j < out_shape1; ++j) @out(i, j) = order[j].second;
        }
        """,
        [points, others],
        [((60, k), "int32")],
    )
    distances = ((points[:, None] - others[None]) ** 2).sum(-1)
    assert np.array_equal(found, np.argsort(distances, axis=1, kind="stable")[:, :k])


def test_aliases_in_the_header_and_several_outputs(run):
    x = np.array([3, 2, 1, 5], np.int32)
    low, high, ordered = run(
        """
        @alias(low, out0) @alias(high, out1)
        @low(0) = @high(0) = @a(0);
        for (int i = 0; i < a_shape0; i++) {
            @low(0) = std::min(@low(0), @a(i));
            @high(0) = std::max<a_type>(@high(0), a_p[i * a_stride0]);
            @out2(i) = @a(i);
        }
        std::sort(&@out2(0), &@out2(in0_shape0));
        """,
        [x],
        [((1,), "int32"), ((1,), "int32"), ((4,), "int32")],
        header="#include <algorithm>\n@alias(a, in0)\nstatic a_type helper(a_type x) { return x; }",
    )
    assert (low[0], high[0], ordered.tolist()) == (1, 5, [1, 2, 3, 5])


def test_aliases_of_the_caller(run):
    x, gradient, result = (RNG.integers(0, 99, (4, 3)).astype(np.float32) for _ in range(3))
    (made,) = run(
        "for (int i = 0; i < dout_shape0; ++i) for (int j = 0; j < 3; ++j)\n"
        "  @out(i, j) = @dout(i, j) * @in0(i, j) + @pout(i, j) - pout0_p[i * pout0_stride0 + j];",
        [x, gradient, result],
        [((4, 3), "float32")],
        aliases={"dout": "in1", "pout": "in2", "pout0": "in2"},
    )
    assert np.array_equal(made, gradient * x)


def test_run_time_numbers(run):
    (made,) = run(
        'double scale = data["scale"]; for (int i = 0; i < out_shape0; ++i) @out(i) = scale * i + data["shift"];',
        [],
        [((5,), "float64")],
        {"scale": 2.5, "shift": np.float32(1), "unused": 3},
    )
    assert made.tolist() == [1, 3.5, 6, 8.5, 11]


def test_missing_numbers_do_not_end_the_process(run):
    with pytest.raises(KernelError, match='no entry "scale"'):
        run(
            '#pragma omp parallel for\nfor (int i = 0; i < 5; ++i) @out(i) = data["scale"];',
            [],
            [((5,), "float64")],
            {"other": 1.0},
        )


def test_a_dynamic_number_of_results(run):
    x = RNG.standard_normal((50, 2)).astype(np.float32)
    positive, count = run(
        """
        int n = 0;
        for (int i = 0; i < in0_shape0; ++i)
            if (@in0(i, 0) > 0) {
                for (int j = 0; j < 2; ++j) @out(n, j) = @in0(i, j);
                n++;
            }
        out->set_shape({n, 2});
        out1->set_shape({size_t(1)});
        out1->ptr<int>()[0] = out->num + in0->shape[1] + in0->shape.size();
        """,
        [x],
        [((50, 2), "float32"), ((3,), "int32")],
    )
    assert np.array_equal(positive, x[x[:, 0] > 0])
    assert count.tolist() == [positive.size + 4]


WRONG_SHAPES = {
    "{6, 2}": "dimension 0 can't become 6: it is 5 at most",
    "{-1, 2}": "dimension 0 can't become -1",
    "{5, 3}": "only dimension 0",
    "{5}": "1 dimensions given",
}


def test_wrong_dynamic_shapes(backend, table):
    choices = "".join(
        f'if (data["k"] == {k}) out->set_shape({shape});\n' for k, shape in enumerate(WRONG_SHAPES)
    )
    source = choices + 'if (data["k"] == 4) in0->set_shape({1});'
    text = backend.emit_code("shapes", "", source, [(float32, 1)], [(float32, 2)])
    loaded = backend.load(backend.compile([text]), {"shapes": None})["shapes"]
    handle = table.handles[table.add(np.zeros((5, 2), np.float32))]
    for k, words in enumerate([*WRONG_SHAPES.values(), "only outputs"]):
        with pytest.raises(KernelError, match=words):
            backend.launch_code(loaded, [(handle, (1,))], [(handle, (5, 2))], {"k": k})


def test_every_element_type(run):
    names = sorted(name for name, dtype in DTYPES.items() if dtype.storage == dtype.numpy)
    inputs = [np.array([0, 1, 1, 0, 1]).astype(DTYPES[name].numpy) for name in names]
    lines = [
        f"for (int i = 0; i < in{k}_shape0; ++i) {{ in{k}_type x = @in{k}(i); @out{k}(i) = x; }}\n"
        f"static_assert(is_same<@in{k}_type, {name}>::value && is_same<out{k}_type, {name}>::value);"
        for k, name in enumerate(names)
    ]
    made = run("\n".join(lines), inputs, [((5,), name) for name in names])
    for x, y in zip(inputs, made, strict=True):
        assert y.dtype == x.dtype
        assert np.array_equal(x, y)


def test_in_place(backend, table):
    text = backend.emit_code(
        "inplace",
        "",
        "for (int i = 0; i < out_shape0; ++i) @out(i) = @in0(i) * 2;",
        [(float32, 1)],
        [(float32, 1)],
    )
    loaded = backend.load(backend.compile([text]), {"inplace": None})["inplace"]
    x = np.arange(1000, dtype=np.float32)
    slot = table.add(x)
    array = (table.handles[slot], (1000,))
    assert backend.launch_code(loaded, [array], [array], {}) == [(1000,)]
    assert np.array_equal(table.get(slot), x * 2)


def test_names_of_the_user_may_shadow_ours(run):
    (made,) = run(
        "@alias(x, out)\nint in0_shape0 = 2; int x_dim = 1, x = 3, data = 4;\n"
        "@x(0) = in0_shape0 + x + data + x_dim;",
        [np.zeros(7, np.float32)],
        [((1,), "float32")],
    )
    assert made[0] == 10


def test_early_return_and_local_functions(run):
    (made,) = run(
        "auto twice = [](float x) { return 2 * x; };\n@out(0) = twice(helper(3));\nif (out_shape0 == 2) return;\n@out(1) = 9;",
        [],
        [((2,), "float32")],
        header="float helper(float x) { return x + 1; }",
    )
    assert made.tolist() == [8, 0]


# -- mistakes ---------------------------------------------------------------------------------------------------------
def test_exceptions_become_errors(run):
    with pytest.raises(KernelError, match="index 7 is too large"):
        run('throw std::runtime_error("index 7 is too large");', [], [((1,), "float32")])
    with pytest.raises(KernelError, match=r"no std::exception"):
        run("throw 7;", [], [((1,), "float32")])
    with pytest.raises(KernelError, match="vector"):
        run("std::vector<int> x(3); x.at(5) = 1;", [], [((1,), "float32")])


def test_compiler_messages_name_the_users_lines(backend):
    source = "int x = 1;\n@for(i, 0, 3,\n  x += @i;\n)\nint y = undefined_name;\n"
    with pytest.raises(CompileError) as caught:
        backend.compile([backend.emit_code("wrong", "", source, [], [(float32, 1)])])
    message = str(caught.value)
    assert "cpu_src:5" in message
    assert "undefined_name" in message
    assert len(message.split("\n")) < 10
    header = "#include <vector>\nint f() { return missing; }"
    with pytest.raises(CompileError, match="cpu_header:2.*missing"):
        backend.compile([backend.emit_code("wrong", header, "", [], [(float32, 1)])])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("int k = 0;\nif (k) {\n k = 1;\n", r"cpu_src line 2: '\{' is not closed"),
        ("int k = 0;\nk = 1; }\nint b;", r"cpu_src line 2: '\}' closes nothing"),
        ("int k = 0;\nstd::abs(\n\n", r"cpu_src line 2: '\(' is not closed"),
    ],
)
def test_brackets_without_partners_are_named_where_they_are(backend, source, words):
    with pytest.raises(CompileError, match=words) as caught:
        backend.compile([backend.emit_code("wrong", "", source, [], [(float32, 1)])])
    assert "wrapper" not in str(caught.value) and "entry" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "source"),
    [
        ("", "out_p[0] = 7;  // a comment that ends in \\"),
        ("#define BEGIN {", "BEGIN @out(0) = 7; }"),
        ("", "#define OPEN if (true) {\nOPEN out_p[0] = 7; }"),
        ("", "const char* text = \"{\"; out_p[0] = text ? 7 : '('; /* { */"),
    ],
)
def test_what_only_looks_unbalanced_compiles(run, header, source):
    assert run(source, [], [((1,), "int32")], header=header)[0].tolist() == [7]


def test_numbers_that_data_lacks_are_found_without_a_compiler(backend):
    source = 'out_p[0] = data["a"]; // data["b"]'
    backend.emit_code("read", "", source, [], [(float32, 1)], data=["a"])
    with pytest.raises(ArgumentError, match=r"cpu_src reads data\['a'\].* data has 'c', 'd'"):
        backend.emit_code("read", "", source, [], [(float32, 1)], data=["c", "d"])


@pytest.mark.parametrize(
    "header, source, options, line",
    [
        pytest.param("", "\n\nstd::sort(1.0f, 2.0f);", [], "cpu_src:3:", id="inside-a-library"),
        pytest.param(
            "", "if (true) {\n@out(0) = 1;\n\n", [], "cpu_src line 1: '{' is not closed", id="not-closed"
        ),
        pytest.param("", "@out(0) = 1;\n}", [], "cpu_src line 2: '}' closes nothing", id="closed-twice"),
        pytest.param(
            "int a;\nvoid f() {\n",
            "@out(0) = 1;",
            [],
            "cpu_header line 2: '{' is not closed",
            id="header-not-closed",
        ),
        pytest.param("", "@out(0) = 1;", ["-lno-such-library"], "no-such-library", id="linker"),
        pytest.param(
            "float far(int);",
            "\n@out(0) = far(3);",
            [],
            "\ncpu_src:2: undefined reference to `far(int)'",
            id="undefined",
        ),
    ],
)
def test_what_is_wrong_elsewhere_is_found_too(backend, header, source, options, line):
    with pytest.raises(CompileError) as caught:
        backend.compile([backend.emit_code("wrong", header, source, [], [(float32, 1)], options=options)])
    assert line in str(caught.value)


@pytest.mark.skipif(sys.platform == "darwin", reason="an option of GNU's linker")
def test_a_snippet_may_ask_for_names_of_the_process(run):
    header = 'extern "C" int Py_IsInitialized();'
    answer = run(
        "@out(0) = Py_IsInitialized();", [], [((1,), "float32")], header=header, options=["-Wl,-z,undefs"]
    )
    assert answer[0].tolist() == [1.0]


@pytest.mark.parametrize("end", ["// slashed \\", "\\"])
def test_a_text_may_end_in_a_backslash(run, end):
    assert run("@out(0) = 1; " + end, [], [((1,), "float32")])[0].tolist() == [1.0]


def test_long_messages_are_cut(backend):
    source = "\n".join(f"wrong{k}(std::vector<int>(3) == 5);" for k in range(200))
    with pytest.raises(CompileError) as caught:
        backend.compile([backend.emit_code("wrong", "", source, [], [(float32, 1)])])
    assert len(str(caught.value)) < 8000


def test_macro_mistakes_are_found_without_a_compiler(backend, monkeypatch):
    monkeypatch.setenv("METAFUSE_CXX", "/nowhere/compiler")
    with pytest.raises(ArgumentError, match=r"cpu_src line 2, column 1: unknown macro @in1"):
        backend.emit_code("wrong", "", "\n@in1(0)", [(float32, 1)], [(float32, 1)])
    with pytest.raises(ArgumentError, match="cpu_header line 1"):
        backend.emit_code("wrong", "@foo(1)", "", [(float32, 1)], [(float32, 1)])
    with pytest.raises(ArgumentError, match="'dout' stands for an unknown array: 'in5'"):
        backend.emit_code("wrong", "", "", [(float32, 1)], [(float32, 1)], {"dout": "in5"})


def test_wrong_arrays(backend, table, axpy):
    text = backend.emit_code("fits", "", "@out(0) = @in0(0, 0);", [(float64, 2)], [(int32, 1)])
    loaded = backend.load(backend.compile([text]), {"fits": None})["fits"]
    handle = table.handles[table.add(np.zeros((2, 3)))]
    good = (handle, (2, 3))
    for inputs, outputs, words in [
        ([], [(handle, (1,))], "1 inputs and 1 outputs: 0 and 1 given"),
        ([(handle, (6,))], [(handle, (1,))], "in0 must have 2 dimensions: 1 given"),
        ([(handle, (-1, 3))], [(handle, (1,))], "-1"),
        ([(handle, (1000, 1000))], [(handle, (1,))], "too small: 8000000 bytes needed"),
        ([(handle, (2**31 - 1, 2**31 - 1))], [(handle, (1,))], "too small"),
        ([(handle, (2**31, 0))], [(handle, (1,))], "2147483648"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            backend.launch_code(loaded, inputs, outputs, {})
    with pytest.raises(BackendError, match="unknown handle"):
        backend.launch_code(loaded, [good], [(64, (1,))], {})
    with pytest.raises(BackendError, match="not a loaded snippet"):
        backend.launch_code(axpy[1], [good], [good], {})


def test_text_depends_on_types_and_ranks_only(backend):
    arguments = ("same", "", "@out(0) = @in0(0);", [(float32, 1)], [(float32, 1)])
    assert backend.emit_code(*arguments) == backend.emit_code(*arguments)
    assert backend.emit_code(*arguments) != backend.emit_code(*arguments[:3], [(float64, 1)], [(float32, 1)])


# -- what the operator asks for ---------------------------------------------------------------------------------------
def test_outputs_within_one_buffer(backend, table):
    source = "@out0(0) = 7; for (int i = 0; i < out1_shape0; ++i) @out1(i) = 0.5 + i; @out2(0) = 3;"
    kinds = [(int32, 1), (float64, 1), (float32, 1)]
    text = backend.emit_code("within", "", source, [], kinds)
    loaded = backend.load(backend.compile([text]), {"within": None})["within"]
    slot = table.add(np.zeros(64, np.uint32))
    handle = table.handles[slot]
    outputs = [(handle, (1,)), (handle, (4,)), (handle, (1,))]
    assert backend.launch_code(loaded, [], outputs, {}, [0, 64, 128]) == [(1,), (4,), (1,)]
    held = table.get(slot)
    assert (
        held[0] == 7
        and held[16:24].view(np.float64).tolist() == [0.5, 1.5, 2.5, 3.5]
        and held[32:33].view(np.float32)[0] == 3
    )
    for offsets in ([0, 64, 256], [0, 240, 0], [0, 1 << 40, 0]):
        with pytest.raises(ArgumentError, match="is too small"):
            backend.launch_code(loaded, [], outputs, {}, offsets)


def test_options_show_in_the_text_and_reach_the_compiler(backend, table):
    arguments = ("optioned", "", "@out(0) = N;", [], [(int32, 1)])
    plain, optioned = (
        backend.emit_code(*arguments),
        backend.emit_code(*arguments, options=["-DN=3 + 4", "-lm"]),
    )
    assert plain != optioned and optioned.split("\n", 1)[0].endswith("'-DN=3 + 4' -lm")
    with pytest.raises(CompileError, match="N"):
        backend.compile([plain])
    kernel = (
        'extern "C" void other(void** b, const long long* s, const void* c, long long x, long long y) {}\n'
    )
    for sources in ([optioned], [optioned, kernel]):  # alone, and linked with something else
        loaded = backend.load(backend.compile(sources), {"optioned": None})["optioned"]
        slot = table.add(np.zeros(1, np.int32))
        backend.launch_code(loaded, [], [(table.handles[slot], (1,))], {})
        assert table.get(slot)[0] == 7
    assert "optioned_snippet" in backend.assembly(optioned)


def test_messages_name_files_as_they_are_told(backend):
    text = backend.emit_code(
        "named", "\nint f() { return a; }", "\n\nb;", [], [], files=("my header", "my source")
    )
    with pytest.raises(CompileError, match=r"my header:2(.|\n)*my source:3"):
        backend.compile([text])
    with pytest.raises(ArgumentError, match="my source line 1"):
        backend.emit_code("named", "", "@c(1)", [], [], files=("my header", "my source"))


def test_included_files_are_found(tmp_path, monkeypatch):
    from metafuse_backend_cpu.headers import included

    (tmp_path / "below").mkdir()
    (tmp_path / "a.h").write_text('#include "below/b.h"\n#include <vector>\n')
    (tmp_path / "below" / "b.h").write_text('#include "c.h"\n#include "../a.h"\n')
    (tmp_path / "below" / "c.h").write_text("int c;")
    texts = ['  #  include "a.h"\n#include "missing.h"', '// "x.h"']
    assert included(texts, []) == []
    found = included(texts, [f"-I{tmp_path}", "-O3"])
    assert [path.rpartition("/")[2] for path, _ in found] == ["a.h", "b.h", "c.h"]
    monkeypatch.chdir(tmp_path)
    assert included(texts, []) == found
    (tmp_path / "below" / "c.h").write_text("int d;")
    assert [a == b for a, b in zip(included(texts, []), found, strict=True)] == [True, True, False]


ROWS = """
long total = 0, most = 0;
double sum = 0;
#pragma omp parallel if (in0_shape0 > 1) reduction(+ : total, sum)  // two results: their lock too
{
    const int mine = omp_get_thread_num();
    for (int step = 0; step < 200; ++step) {
        #pragma omp for collapse(2) schedule(static)
        for (int i = 0; i < in0_shape0; ++i)
            for (int j = 0; j < in0_shape1; ++j)
                @out(i, j) = (step ? @out(i, j) : 0) + @in0((i + step) % in0_shape0, j);
    }
    #pragma omp barrier
    #pragma omp for
    for (int i = 0; i < in0_shape0; ++i) total += @out(i, 0), sum += @out(i, 1);
    #pragma omp critical
    most = max(most, (long)mine + 1);
}
@out1(0) = total;
@out1(1) = sum;
@out1(2) = most <= omp_get_max_threads();
"""


@pytest.mark.parametrize("extra", ["", "#pragma omp parallel\n#pragma omp single\n{}\n"])
def test_regions_of_openmp(run, extra):
    """On the runtime's threads, and (with what those do not know) on OpenMP's own."""
    x = RNG.integers(0, 9, (7, 3)).astype(np.float32)
    found, numbers = run(ROWS + extra, [x], [((7, 3), "float32"), ((3,), "int64")])
    expected = sum(np.roll(x, -step, 0) for step in range(200))
    assert np.array_equal(found, expected)
    assert list(numbers) == [expected[:, 0].sum(), expected[:, 1].sum(), 1]


def test_regions_within_regions_have_one_thread(run):
    source = """
    #pragma omp parallel for
    for (int i = 0; i < out_shape0; ++i) {
        int sum = 0;
        #pragma omp parallel for reduction(+ : sum) num_threads(4)
        for (int k = 0; k < 100; ++k) sum += k * omp_get_num_threads();
        @out(i) = sum;
    }
    """
    (found,) = run(source, [], [((9,), "int32")])
    assert list(found) == [4950] * 9


@pytest.mark.parametrize(
    "text",
    [
        "#pragma omp parallel for schedule(dynamic)\nfor (;;) {}", "#pragma omp single", "#pragma omp task",
        "#pragma omp parallel for ordered", "#pragma omp sections", "omp_set_num_threads(3);\n#pragma omp parallel",
        "#include \"mine.h\"\n#pragma omp parallel", "#include <Eigen/Dense>\n#pragma omp parallel", "int x = 1;",
        "#pragma omp parallel for \\\n schedule(guided, 4)", "_Pragma(\"omp single\")\n#pragma omp parallel",
    ],
)  # fmt: skip
def test_what_the_runtimes_threads_do_not_know_stays_with_openmp(text):
    assert threads("f", [text], ()) == ""
    assert threads("f", ["#pragma omp parallel"], ["-DN=2"]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "#pragma omp parallel", "# pragma omp parallel for simd reduction(max : a, b) if (n > (3))  // note",
        "#pragma omp parallel for schedule(static, 4) \\\n collapse(2) firstprivate(x)", "#include <vector>\n#pragma omp for",
        "#pragma omp atomic update", "#pragma omp parallel\n#pragma omp critical (name)\n#pragma omp barrier",
    ],
)  # fmt: skip
def test_what_the_runtimes_threads_know(text):
    assert "GOMP_parallel" in threads("f", [text], ())


def test_functions_that_vectorise(run):
    x = RNG.uniform(-3, 3, 500).astype(np.float32)
    source = """
    #pragma omp simd
    for (int i = 0; i < in0_shape0; ++i) {
        @out(0, i) = mf_expf(@in0(i));
        @out(1, i) = mf_tanhf(@in0(i));
        @out(2, i) = mf_logf(mf_expf(@in0(i)));
    }
    """
    (found,) = run(source, [x], [((3, 500), "float32")])
    np.testing.assert_allclose(found, [np.exp(x), np.tanh(x), x], rtol=2e-6, atol=1e-6)
