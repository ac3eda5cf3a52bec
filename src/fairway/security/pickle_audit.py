"""Reads a pickle without executing it, and holds all it would do against the allow-list.

A pickle is a straight-line program for a small stack machine: no branches, no loops. So the audit runs that
program to its end with inert stand-ins on the stack, and knows exactly which names it asks for (however the
strings travel: through the memo, duplicated, popped), what it calls with which arguments, and whose state it
sets. It reads the bytes with the same code as the loader (`pickle._Unpickler` of the standard library), so the
two cannot disagree about what the bytes say.

joblib puts the raw items of arrays between the opcodes, and arrays of objects as further pickles inside the
first: both are followed.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from typing import Any, ClassVar

import msgspec

from fairway.core.errors import CorruptBundle, FairwayError, UnknownFormat, UntrustedArtifact
from fairway.security import dtypes
from fairway.security.allow_list import Rule, rule_for, today
from fairway.security.pickle_acts import dtype_of
from fairway.security.pickle_values import Constant, Global, Group, Mapping, Object

_PythonUnpickler: Any = vars(pickle)[
    "_Unpickler"
]  # the standard library's machine in Python; typed as the C one
_Unframer: Any = vars(pickle)["_Unframer"]
_Stop: Any = vars(pickle)["_Stop"]
_OPCODES = {ord(info.code): info.name for info in pickletools.opcodes}
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_OLD_WRAPPERS = {"joblib.numpy_pickle.NDArrayWrapper", "joblib.numpy_pickle.ZNDArrayWrapper"}
_TRUSTED = Rule()  # compared by identity: a rule that allows nothing looks the same
_OTHER = Rule()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit is willing to read: opcodes in all, pickles inside pickles, parts of a tuple used as a key."""

    opcodes: int = 100_000_000
    nested_pickles: int = 1000
    key_parts: int = 10_000


class PickleAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What a pickle would do.

    `names` is every global it asks for, sorted; `refused` those that are neither allowed nor trusted; `acts`
    what it would do with allowed names that models do not do, in words. `versions` are the scikit-learn
    versions its estimators were saved with.
    """

    names: tuple[str, ...]
    refused: tuple[str, ...]
    acts: tuple[str, ...]
    versions: tuple[str, ...]
    opcodes: int
    pickles: int

    @property
    def passed(self) -> bool:
        return not self.refused and not self.acts


class _Refused(Exception):
    """The stream goes on in a way that cannot be followed any further."""


def audit_pickle(data: bytes, *, trust: tuple[str, ...] = (), limits: Limits | None = None) -> PickleAudit:
    """Reads one (uncompressed) pickle or joblib file; executes and imports nothing the file asks for.

    `trust` are exact `module.name`s allowed on top of the list. Raises `UnknownFormat` when the bytes are no
    pickle, `CorruptBundle` when they begin as one and break off or go on after its end.
    """
    record = _Record(trust, limits or Limits())
    stream = io.BytesIO(data)
    broken: Exception | None = None
    try:
        _Machine(stream, len(data), record).load()
    except _Refused:
        pass
    except FairwayError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken stream makes the reader raise
        broken = error
    if broken is not None and record.clean:
        _raise_broken(data, stream, record, broken)
    end = stream.tell()
    if broken is None and record.clean and end < len(data):
        _follow(stream, len(data), record)
    if broken is None and record.clean and end < len(data):
        raise CorruptBundle(
            f"the pickle ends after {end} bytes, but {len(data) - end} more follow.",
            hint="A model file holds one pickle and nothing else; save the model again.",
        )
    return record.report()


def require_passed(audit: PickleAudit, source: str) -> None:
    """Raises `UntrustedArtifact`, with the names and the flags that would allow them, unless the audit passed."""
    if audit.passed:
        return
    if audit.refused:
        flags = " ".join(f"--trust {name}" for name in audit.refused)
        raise UntrustedArtifact(
            f"{source} asks for code that is not on the allow-list: {', '.join(audit.refused)}. Nothing was run.",
            audit.refused,
            hint=f"Only if you know this code and where the file comes from, allow it with: {flags}",
        )
    raise UntrustedArtifact(
        f"{source} does what no model file does: {'; '.join(audit.acts)}. Nothing was run.",
        hint="Do not open this file. If it is your own model, save it again with joblib.dump.",
    )


def _follow(stream: io.BytesIO, size: int, record: _Record) -> None:
    """Reads the pickles behind the first, which some readers open too, so that their names are said."""
    try:
        while stream.tell() < size:
            _Machine(stream, size, record).load()
    except Exception:  # noqa: BLE001, S110 - what follows is refused in any case
        pass


def _raise_broken(data: bytes, stream: io.BytesIO, record: _Record, error: Exception) -> None:
    begins_as_pickle = data[:1] == b"\x80" and data[1:2] <= b"\x05"
    if not begins_as_pickle and record.opcodes < 5:
        raise UnknownFormat("this is not a pickle.") from error
    reason = "it breaks off" if stream.tell() >= len(data) else f"{type(error).__name__}: {error}"
    raise CorruptBundle(
        f"the pickle cannot be read past byte {stream.tell()} of {len(data)} ({reason}).",
        hint="The file is truncated or altered: copy or save it again.",
    ) from error


class _Record:
    """What was found so far, over the pickle and those inside it."""

    def __init__(self, trust: tuple[str, ...], limits: Limits) -> None:
        self.trust = frozenset(trust)
        self.limits = limits
        self.names: set[str] = set()
        self.refused: set[str] = set()
        self.acts: list[str] = []
        self.versions: set[str] = set()
        self.opcodes = 0
        self.pickles = 0

    @property
    def clean(self) -> bool:
        return not self.refused and not self.acts

    def act(self, what: str) -> None:
        if what not in self.acts and len(self.acts) < 20:
            self.acts.append(what)

    def report(self) -> PickleAudit:
        return PickleAudit(
            names=tuple(sorted(self.names)),
            refused=tuple(sorted(self.refused)),
            acts=tuple(self.acts),
            versions=tuple(sorted(self.versions)),
            opcodes=self.opcodes,
            pickles=self.pickles,
        )


class _Machine(_PythonUnpickler):  # type: ignore[misc]
    """The standard library's pickle machine with every act on an object replaced by a look at the rules."""

    dispatch: ClassVar[dict[int, Any]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, stream: io.BytesIO, size: int, record: _Record) -> None:
        super().__init__(stream, fix_imports=False)
        self._stream = stream
        self._size = size
        self._record = record

    def load(self) -> Any:
        record = self._record
        record.pickles += 1
        if record.pickles > record.limits.nested_pickles:
            self._stop(f"holds more than {record.limits.nested_pickles} pickles")
        self._unframer = _Unframer(self._stream.read, self._stream.readline)
        self.read, self.readinto = self._unframer.read, self._unframer.readinto
        self.readline = self._unframer.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        self._first = True
        dispatch, read, most = self.dispatch, self.read, record.limits.opcodes
        try:
            while True:
                key = read(1)
                if not key:
                    raise EOFError("no STOP opcode")
                record.opcodes += 1
                if record.opcodes > most:
                    self._stop(f"has more than {most} opcodes")
                dispatch[key[0]](self)
                self._first = False
        except _Stop as stop:
            return stop.value

    def _stop(self, what: str) -> None:
        self._record.act(what)
        raise _Refused

    # -- names --

    def find_class(self, module: str, name: str) -> Global:
        """Called by GLOBAL and, with whatever is on the stack, STACK_GLOBAL."""
        if type(module) is not str or type(name) is not str:
            self._stop("computes the name of what it imports")
        found = today(module, name)
        self._record.names.add(found.dotted)
        if found.dotted in _OLD_WRAPPERS:
            raise UnknownFormat(
                "the file was written by joblib before 0.10, with its arrays in files beside it.",
                hint="Load and save it once with a current joblib.",
            )
        if self._rule(found) is None:
            self._record.refused.add(found.dotted)
        return found

    def _rule(self, name: Global) -> Rule | None:
        return _TRUSTED if name.dotted in self._record.trust else rule_for(name)

    def load_stack_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        self.append(self.find_class(module, name))

    # -- calls --

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global):
            self._stop("calls something that is not a plain name")
        if not isinstance(arguments, tuple):
            self._stop(f"calls {function.dotted} with something that is not a tuple")
        rule = self._rule(function)
        if rule is None or rule is _TRUSTED:
            return Object(function, arguments)
        if rule.call is None or not rule.call(arguments):
            if self._trusted_class(function, arguments):
                return Object(arguments[0], arguments)
            self._record.act(f"calls {function.dotted} with {_shown(arguments)}")
            return Object(function, arguments)
        return _result(function, rule, arguments)

    def _trusted_class(self, function: Global, arguments: tuple[Any, ...]) -> bool:
        """Whether protocol 0 or 1 makes an object of a class the user trusts, or of one already refused."""
        if function.dotted not in ("copyreg._reconstructor", "copyreg.__newobj__") or not arguments:
            return False
        if function.dotted == "copyreg._reconstructor" and not (
            len(arguments) == 3 and isinstance(arguments[1], Global) and arguments[1].module == "builtins"
        ):
            return False
        cls = arguments[0]
        rule = self._rule(cls) if isinstance(cls, Global) else _OTHER
        return rule is None or rule is _TRUSTED

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _make(self, cls: Any, arguments: Any) -> Object:
        if not isinstance(cls, Global):
            self._stop("makes an object of something that is not a plain name")
        if not isinstance(arguments, tuple):
            self._stop(f"makes a {cls.dotted} with something that is not a tuple")
        rule = self._rule(cls)
        if rule is not None and rule is not _TRUSTED and (rule.new is None or not rule.new(arguments)):
            self._record.act(f"makes a {cls.dotted} with {_shown(arguments)}")
        return Object(cls, arguments)

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        self.append(self._make(self.stack.pop(), arguments))

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        cls = self.stack.pop()
        made = self._make(cls, arguments)
        if not isinstance(keywords, Mapping) or keywords.named or keywords.others:
            rule = self._rule(made.maker)
            if rule is not None and rule is not _TRUSTED:
                self._record.act(f"makes a {made.maker.dotted} with keyword arguments")
        self.append(made)

    def _old_class(self, *_: Any) -> None:
        self._stop("uses INST or OBJ, which Python 3 never writes")

    def load_inst(self) -> None:
        module = self.readline()[:-1].decode("utf-8", "replace")
        name = self.readline()[:-1].decode("utf-8", "replace")
        self.find_class(module, name)
        self._old_class()

    # -- state --

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if not isinstance(made, Object):
            self._stop(f"sets attributes of {_shown((made,))}")
        if isinstance(state, Mapping) and type(state.named.get("_sklearn_version")) is str:
            self._record.versions.add(state.named["_sklearn_version"])
        rule = self._rule(made.maker)
        if rule is not None and rule is not _TRUSTED:
            if made.built:
                self._record.act(f"sets the state of one {made.maker.dotted} twice")
            elif rule.state is None or not rule.state(made, state):
                self._record.act(f"sets an unusual state on a {made.maker.dotted}")
            if made.maker.dotted == _WRAPPER:
                self.stack[-1] = self._array(made, state)
        made.built = True

    def _array(self, made: Object, state: Any) -> Object:
        """joblib's array: its description was just read, its items follow in the file."""
        if made.built or not isinstance(state, Mapping):
            self._stop("reads one array twice")
        described = state.named
        dtype, shape = dtype_of(described.get("dtype")), described.get("shape")
        if dtype is None or not isinstance(shape, tuple) or described.get("order") not in ("C", "F"):
            self._stop("describes an array in an unusual way")
            raise AssertionError
        cls = described.get("subclass")
        if not isinstance(cls, Global) or cls.dotted not in ("numpy.ndarray", "numpy.matrix", "numpy.memmap"):
            self._stop("describes an array in an unusual way")
        sizes = [_size(part) for part in shape]
        if any(size is None for size in sizes):
            self._stop("describes an array in an unusual way")
        if dtype.hasobject:
            _Machine(self._stream, self._size, self._record).load()
        else:
            self._skip_items(math.prod(s for s in sizes if s is not None) * dtype.itemsize, described)
        return Object(Global("numpy", "ndarray"), value=None, built=True)

    def _skip_items(self, size: int, described: dict[str, Any]) -> None:
        if described.get("numpy_array_alignment_bytes") is not None:
            self._stream.seek(self._stream.read(1)[0], io.SEEK_CUR)
        if size > self._size - self._stream.tell():
            self._stream.seek(0, io.SEEK_END)
            raise EOFError("the items of an array are cut short")
        self._stream.seek(size, io.SEEK_CUR)

    # -- containers: stand-ins never run __setitem__, extend or __hash__ --

    def load_append(self) -> None:
        self._extend([self.stack.pop()])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        else:
            self._takes(target, "list")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key in items[::2]:
            self._hashable(key)
        if type(target) is Mapping:
            for index in range(0, len(items), 2):
                target.set(items[index], items[index + 1])
        else:
            self._takes(target, "dict")

    def load_additems(self) -> None:
        items = self.pop_mark()
        target = self.stack[-1]
        for item in items:
            self._hashable(item)
        if type(target) is Group:
            target.items.extend(items)
        else:
            self._takes(target, "set")

    def _takes(self, target: Any, items: str) -> None:
        if not isinstance(target, Object):
            self._stop(f"puts items into {_shown((target,))}")
        rule = self._rule(target.maker)
        if rule is not None and rule is not _TRUSTED and rule.items != items:
            self._record.act(f"puts items into a {target.maker.dotted}")

    def _hashable(self, key: Any) -> None:
        """A tuple of tuples of tuples can take for ever to hash, or overrun the C stack."""
        if type(key) is not tuple:
            return
        budget, pending = self._record.limits.key_parts, [key]
        while pending:
            item = pending.pop()
            if type(item) is tuple:
                budget -= len(item) + 1
                if budget < 0:
                    self._stop("uses a huge tuple as a key")
                pending.extend(item)

    def load_empty_dictionary(self) -> None:
        self.append(Mapping())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(Mapping())
        self._set(items)

    def load_empty_set(self) -> None:
        self.append(Group())

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        for item in items:
            self._hashable(item)
        self.append(Group(items))

    # -- what no model file holds --

    def load_proto(self) -> None:
        if not self._first:
            self._stop("changes the protocol on the way")
        super().load_proto()

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self._size:
            raise EOFError("a bytearray longer than the file")
        self.append(bytearray(self.read(size)))

    def _persistent(self) -> None:
        self._stop("refers to objects outside the file")

    def _extension(self) -> None:
        self._stop("imports through copyreg's extension registry")

    def _out_of_band(self) -> None:
        self._stop("refers to buffers outside the file")


def _override(machine: type[_Machine]) -> None:
    """Points the dispatch table at the methods above; opcodes that touch no object keep the library's own."""
    by_opcode = {
        "STACK_GLOBAL": machine.load_stack_global,
        "REDUCE": machine.load_reduce,
        "NEWOBJ": machine.load_newobj,
        "NEWOBJ_EX": machine.load_newobj_ex,
        "INST": machine.load_inst,
        "OBJ": machine._old_class,
        "BUILD": machine.load_build,
        "APPEND": machine.load_append,
        "APPENDS": machine.load_appends,
        "SETITEM": machine.load_setitem,
        "SETITEMS": machine.load_setitems,
        "ADDITEMS": machine.load_additems,
        "EMPTY_DICT": machine.load_empty_dictionary,
        "DICT": machine.load_dict,
        "EMPTY_SET": machine.load_empty_set,
        "FROZENSET": machine.load_frozenset,
        "PROTO": machine.load_proto,
        "BYTEARRAY8": machine.load_bytearray8,
        "PERSID": machine._persistent,
        "BINPERSID": machine._persistent,
        "EXT1": machine._extension,
        "EXT2": machine._extension,
        "EXT4": machine._extension,
        "NEXT_BUFFER": machine._out_of_band,
        "READONLY_BUFFER": machine._out_of_band,
    }
    for code, name in _OPCODES.items():
        if name in by_opcode:
            machine.dispatch[code] = by_opcode[name]
    missing = set(by_opcode) - set(_OPCODES.values())
    unknown = set(machine.dispatch) - set(_OPCODES)
    if missing or unknown:  # a Python with other opcodes than the ones looked at here
        raise RuntimeError(f"this Python's pickle has opcodes the audit does not know: {missing or unknown}")


_override(_Machine)


def _result(function: Global, rule: Rule, arguments: tuple[Any, ...]) -> Any:
    """The stand-in for what an allowed call gives; text and bytes are worked out, because others look at them."""
    if function.dotted in ("_codecs.encode", "builtins.bytes", "builtins.bytearray"):
        if len(arguments) == 2:
            return arguments[0].encode("latin-1")
        return bytes(arguments[0]) if arguments else b""
    if function.dotted == "numpy.dtype":
        return Object(function, arguments, value=dtypes.described(arguments))
    if rule.makes == "first" and isinstance(arguments[0], Global):
        return Object(arguments[0], arguments)
    if rule.makes == "first" or not rule.makes:
        return Object(function, arguments)
    module, _, name = rule.makes.rpartition(".")
    return Object(Global(module, name), arguments)


def _size(part: Any) -> int | None:
    """An array's length along one axis: an integer, or numpy's integer scalar."""
    if isinstance(part, Object) and part.maker.dotted == "numpy._core.multiarray.scalar":
        dtype = dtype_of(part.arguments[0])
        raw = part.arguments[1]
        if dtype is not None and dtype.kind in "iu" and isinstance(raw, bytes) and len(raw) == dtype.itemsize:
            part = int.from_bytes(
                raw, "big" if dtype.byteorder == ">" else "little", signed=dtype.kind == "i"
            )
    return part if type(part) is int and 0 <= part < 2**48 else None


def _shown(values: tuple[Any, ...]) -> str:
    """Arguments in words, short: `os.system, 'id'`."""
    shown = []
    for value in values[:4]:
        if isinstance(value, Global):
            shown.append(value.dotted)
        elif isinstance(value, Object):
            shown.append(f"a {value.maker.dotted}")
        elif isinstance(value, Constant):
            text = repr(value[:40] if isinstance(value, (str, bytes, bytearray)) else value)
            shown.append(text[:60])
        else:
            shown.append(f"a {type(value).__name__.lower()}")
    return ", ".join(shown) + (", ..." if len(values) > 4 else "") if values else "nothing"
