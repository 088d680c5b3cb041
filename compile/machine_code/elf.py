"""Reading what a linker must know, and a test must check, of an ELF file: its machine, symbols and dependencies."""

import struct
from dataclasses import dataclass

from modeltree.errors import FormatError

_MACHINES = {62: "x86_64", 183: "aarch64", 40: "arm"}
_SYMBOL_TABLES = (2, 11)  # SHT_SYMTAB of an object, SHT_DYNSYM of a shared library
_DYNAMIC = 6
_NEEDED, _SONAME, _TEXTREL, _FLAGS, _DF_TEXTREL = 1, 14, 22, 30, 4


@dataclass(frozen=True, kw_only=True)
class Elf:
    """An object file or a shared library.

    undefined : names it asks for. exported : names it gives to others (global or weak, not hidden).
    needed : libraries it is loaded with. text_relocations : its code must be written to when it is loaded.
    """

    machine: str
    bits: int
    sections: tuple[str, ...]
    undefined: frozenset[str]
    exported: frozenset[str]
    needed: tuple[str, ...]
    soname: str | None
    text_relocations: bool


@dataclass(frozen=True, kw_only=True)
class _Section:
    name: str
    kind: int
    data: bytes
    link: int


def read_elf(data: bytes) -> Elf:
    """What `data`, a little-endian ELF file, says of itself.

    Raises
    ------
    FormatError : it is not one, or is cut short.
    """
    if data[:4] != b"\x7fELF" or data[5:6] != b"\x01":
        raise FormatError("not a little-endian ELF file: pass an object file or a shared library")
    try:
        return _read(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FormatError(f"the ELF file is cut short or broken: {error}") from error


def _read(data: bytes) -> Elf:
    wide = data[4] == 2
    sections = _sections(data, wide)
    undefined: set[str] = set()
    exported: set[str] = set()
    for section in sections:
        if section.kind in _SYMBOL_TABLES:
            for name, binding, hidden, home in _symbols(section, sections[section.link].data, wide):
                if binding and home == 0:
                    undefined.add(name)
                elif binding and not hidden:
                    exported.add(name)
    entries = [entry for section in sections if section.kind == _DYNAMIC for entry in _entries(section, sections, wide)]
    sonames = [str(value) for tag, value in entries if tag == _SONAME]
    (machine,) = struct.unpack_from("<H", data, 18)
    return Elf(
        machine=_MACHINES.get(machine, f"machine {machine}"),
        bits=64 if wide else 32,
        sections=tuple(section.name for section in sections),
        undefined=frozenset(undefined),
        exported=frozenset(exported),
        needed=tuple(str(value) for tag, value in entries if tag == _NEEDED),
        soname=sonames[0] if sonames else None,
        text_relocations=any(tag == _TEXTREL or (tag == _FLAGS and int(value) & _DF_TEXTREL) for tag, value in entries),
    )


def _sections(data: bytes, wide: bool) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", data, 40) if wide else struct.unpack_from("<I", data, 32)
    size, count, names = struct.unpack_from("<3H", data, 58 if wide else 46)
    form = "<IIQQQQII" if wide else "<8I"
    rows = [struct.unpack_from(form, data, start + i * size) for i in range(count)]
    if not rows:
        return []
    table = data[rows[names][4] :]
    return [
        _Section(name=_text(table, row[0]), kind=row[1], data=data[row[4] : row[4] + row[5]], link=row[6])
        for row in rows
    ]


def _symbols(section: _Section, names: bytes, wide: bool) -> list[tuple[str, int, bool, int]]:
    """(name, binding, hidden, section) of every named symbol."""
    found = []
    for row in struct.iter_unpack("<IBBHQQ" if wide else "<IIIBBH", section.data):
        info, other, home = row[1:4] if wide else row[3:6]
        if name := _text(names, row[0]):
            found.append((name, info >> 4, other & 3 in (1, 2), home))
    return found


def _entries(section: _Section, sections: list[_Section], wide: bool) -> list[tuple[int, str | int]]:
    """Tag and value of the dynamic section, names spelt out."""
    names = sections[section.link].data
    return [
        (tag, _text(names, value) if tag in (_NEEDED, _SONAME) else value)
        for tag, value in struct.iter_unpack("<QQ" if wide else "<II", section.data)
    ]


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
