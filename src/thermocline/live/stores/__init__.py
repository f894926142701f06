"""The stores: places that keep the bytes of pages that left DRAM.

| file | what it is |
|---|---|
| store | the interface |
| compressed | compressed memory; `pool` packs the data, `holes` knows its free space, `ledger` what it holds, |
| | `blosc` is the codec, `filters` chooses what goes before it |
| file | an unlinked file on disk; `device` reads and writes whole pages, `seals` encrypts and checks them |
| source | the file an array was made from, read-only |
| slots | numbers for slots |
| digest | checksums, and the error of a page that came back changed |

A new store is a file with a subclass of `NodeStore`, and a line in the table below.
"""

from __future__ import annotations

from typing import Any

from thermocline.live.stores.compressed import CompressedStore
from thermocline.live.stores.file import FileStore
from thermocline.live.stores.source import SourceStore
from thermocline.live.stores.store import NodeStore, Store
from thermocline.spec import Compressed, File

#: The store that a node of a spec is made of.
STORES: dict[type[Any], type[NodeStore[Any]]] = {
    Compressed: CompressedStore,
    File: FileStore,
}

__all__ = ["STORES", "NodeStore", "SourceStore", "Store"]
