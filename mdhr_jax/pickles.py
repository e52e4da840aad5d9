# SPDX-License-Identifier: Apache-2.0
"""Pickle streams read as data: nothing is imported, nothing is called but what the reader brings.

A pickle is a program for a small stack machine. `pickletools` of the standard library takes it
apart; this machine knows only the instructions that build numbers, strings, tuples, lists and
dicts. A global name is looked up in the caller's table and nowhere else; what is not in it is
refused, or passed over: of a value that it would make its name is kept and nothing else.
"""

import abc
import io
import pickletools
import reprlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

MAX_INSTRUCTIONS = 2**17  # a checkpoint with its optimizer's state has about 2**16
MAX_DEPTH = 16

_MARK = object()


class Refused(ValueError):
    """The stream holds something that the reader does not know; the message names it."""


class Global:
    """A name that the stream refers to; `build` makes a value from arguments, or is None."""

    def __init__(self, name: str, build: Callable | None):
        self.name = name
        self.build = build


class Unknown:
    """Stands where a value belongs that a name which is not allowed would make."""

    def __init__(self, name: str):
        self.name = name


def load(
    stream: io.BytesIO,
    *,
    allowed: Mapping[str, Callable | None],
    persistent: Callable[[Any], Any],
    passed_over: set[str] | None = None,
) -> Any:
    """The value of one pickle; the stream is left after its end.

    Args:
      stream: starts with a pickle.
      allowed: global names to what makes a value of their arguments; None for names that are only
        referred to.
      persistent: takes a persistent identifier, gives the value for it.
      passed_over: takes the names that are not allowed, whose values become `Unknown`; by default
        they are refused.

    Raises:
      Refused: unknown names or instructions, a broken, too long or too deeply nested stream.
    """
    machine = _Machine(allowed, persistent, passed_over)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of text with an unknown escape
            for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
                if count >= MAX_INSTRUCTIONS:
                    raise Refused(f"more than {MAX_INSTRUCTIONS} instructions")
                machine.run(code.name, argument)
        value = machine.result()
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Refused(f"a broken pickle ({error})") from error
    _check_depth(value)
    return value


class Stateful(abc.ABC):
    """A value that takes what the stream sets on it after making it."""

    @abc.abstractmethod
    def set_state(self, state: Any) -> None:
        """Raises `Refused`, or an error of a broken stream, where the state is not as expected."""


class _Machine:
    """The stack, the memo, and a method for each instruction that does more than push."""

    def __init__(
        self,
        allowed: Mapping[str, Callable | None],
        persistent: Callable,
        passed_over: set[str] | None,
    ):
        self._allowed = allowed
        self._persistent = persistent
        self._passed_over = passed_over
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def run(self, name: str, argument: object) -> None:
        """Carries one instruction out."""
        if name not in self._INSTRUCTIONS:
            raise Refused(f"the instruction {name}")
        self._INSTRUCTIONS[name](self, argument)

    def pop(self) -> object:
        """The topmost value."""
        value = self._stack.pop()
        if value is _MARK:
            raise Refused("a broken pickle (a mark where a value belongs)")
        return value

    def result(self) -> Any:
        """What is left when the stream has stopped."""
        if len(self._stack) != 1:
            raise Refused(f"a broken pickle ({len(self._stack)} values instead of one)")
        return self.pop()

    def _pop_to_mark(self) -> list[object]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _top(self, kind: type) -> Any:
        top = self._stack[-1]
        if type(top) is Unknown:
            return kind()  # which nobody keeps
        if type(top) is not kind:
            raise Refused(f"a broken pickle ({_kind(top)} where a {kind.__name__} belongs)")
        return top

    def _nothing(self, _: object) -> None: ...

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _mark(self, _: object) -> None:
        self._stack.append(_MARK)

    def _none(self, _: object) -> None:
        self._stack.append(None)

    def _true(self, _: object) -> None:
        self._stack.append(True)

    def _false(self, _: object) -> None:
        self._stack.append(False)

    def _empty_dict(self, _: object) -> None:
        self._stack.append({})

    def _empty_list(self, _: object) -> None:
        self._stack.append([])

    def _empty_tuple(self, _: object) -> None:
        self._stack.append(())

    def _tuple_of(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self._stack.append(tuple(reversed(items)))

    def _tuple(self, _: object) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _append(self, _: object) -> None:
        value = self.pop()
        self._top(list).append(value)

    def _appends(self, _: object) -> None:
        values = self._pop_to_mark()
        self._top(list).extend(values)

    def _set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        _set(self._top(dict), [key, value])

    def _set_items(self, _: object) -> None:
        pairs = self._pop_to_mark()
        _set(self._top(dict), pairs)

    def _put(self, slot: int) -> None:
        self._memo[slot] = self._stack[-1]

    def _memoize(self, _: object) -> None:
        self._put(len(self._memo))

    def _get(self, slot: int) -> None:
        self._stack.append(self._memo[slot])

    def _global(self, argument: str) -> None:
        self._push_global(*argument.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        self._push_global(module, name)

    def _push_global(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("a name that is no text")
        full = f"{module}.{name}"
        shown = f"{full if full.isprintable() else ascii(full):.200}"
        if full in self._allowed:
            self._stack.append(Global(full, self._allowed[full]))
        elif self._passed_over is None:
            raise Refused(f"the name {shown}")
        else:
            self._passed_over.add(shown)
            self._stack.append(Unknown(shown))

    def _reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is Unknown:
            self._stack.append(function)
            return
        if type(function) is not Global or function.build is None or type(arguments) is not tuple:
            raise Refused(f"a call of {_kind(function)}")
        self._stack.append(function.build(*arguments))

    def _build(self, _: object) -> None:
        state = self.pop()
        # Other attributes, such as the _metadata of a state_dict, carry no weights: dropped.
        if isinstance(self._stack[-1], Stateful):
            self._stack[-1].set_state(state)

    def _persistent_id(self, _: object) -> None:
        self._stack.append(self._persistent(self.pop()))

    _INSTRUCTIONS: ClassVar[dict[str, Callable]] = {
        "PROTO": _nothing,
        "FRAME": _nothing,
        "STOP": _nothing,
        "MARK": _mark,
        "NONE": _none,
        "NEWTRUE": _true,
        "NEWFALSE": _false,
        "BININT": _push,
        "BININT1": _push,
        "BININT2": _push,
        "LONG1": _push,
        "BINFLOAT": _push,
        "BINUNICODE": _push,
        "SHORT_BINUNICODE": _push,
        "BINUNICODE8": _push,
        "BINSTRING": _push,
        "SHORT_BINSTRING": _push,
        "EMPTY_DICT": _empty_dict,
        "EMPTY_LIST": _empty_list,
        "EMPTY_TUPLE": _empty_tuple,
        "TUPLE1": lambda self, _: self._tuple_of(1),
        "TUPLE2": lambda self, _: self._tuple_of(2),
        "TUPLE3": lambda self, _: self._tuple_of(3),
        "TUPLE": _tuple,
        "APPEND": _append,
        "APPENDS": _appends,
        "SETITEM": _set_item,
        "SETITEMS": _set_items,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "MEMOIZE": _memoize,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "GLOBAL": _global,
        "STACK_GLOBAL": _stack_global,
        "REDUCE": _reduce,
        "NEWOBJ": _reduce,
        "BUILD": _build,
        "BINPERSID": _persistent_id,
    }


def _kind(value: Any) -> str:
    return value.name if type(value) in (Global, Unknown) else type(value).__name__


def _set(target: dict, items: list[object]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int, Global, Unknown):
            raise Refused(f"a dict key of type {type(key).__name__}")
        if key in target:
            raise Refused(f"two entries named {reprlib.repr(key)}")
        target[key] = value


def _check_depth(value: Any) -> None:
    """Breadth first over each container once, so cycles and shared parts cost nothing."""
    level: list[Any] = [value]
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        new = {id(v): v for v in level if type(v) in (dict, list, tuple) and id(v) not in seen}
        seen.update(new)
        level = [item for c in new.values() for item in (c.values() if type(c) is dict else c)]
        if not level:
            return
    raise Refused(f"values nested more than {MAX_DEPTH} deep")
