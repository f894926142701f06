"""What is written on this machine, and what is it about?

Reads the text found on every machine (/usr/share/doc, the Python standard library, the installed packages),
weighs its words by tf-idf in one dense matrix, finds the main directions of meaning (latent semantic
analysis: a truncated singular value decomposition), groups the documents into topics, and names the files
nearest to a few given ones.

    python topics.py
    python topics.py --documents 5000 --query Lib/csv.py --query Lib/heapq.py

A document is a passage of a file: 2,500 characters, beginning every 2,000, so that what stands on the edge of
one passage is whole in the next. Short documents let a long module have more than one subject.

The matrix is dense, so that BLAS does the work. With the default sizes it is 24,000 x 4,000 numbers of 4
bytes, 384 MB, and the variance of its columns takes as much again for a moment.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import json
import keyword
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.preprocessing import normalize

LENGTH, STEP = 2_500, 2_000  # of a passage, in characters
SHORTEST = 300  # characters; less than that (an empty __init__.py) says nothing
READ = 200_000  # characters read of one file: the changelog of twenty years is worth no more than a book

CODE_SUFFIXES = {".py", ".rst", ".md", ".txt"}
PROSE_SUFFIXES = {"", ".txt", ".md", ".rst", ".Debian"}  # "" is that of README and copyright

# Tests repeat the words of what they test, and of each other.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}

WORD = r"[^\W\d_]{3,}"  # letters only, so that the words of a_snake_case_name are counted one by one
CODE_WORDS = {
    "arg", "args", "argument", "arguments", "bool", "call", "cls", "code", "def", "default", "defaults",
    "dict", "doc", "example", "exc", "false", "file", "float", "func", "function", "init", "int",
    "isinstance", "kwargs", "len", "list", "method", "module", "name", "names", "nbsp", "new", "none",
    "note", "object", "optional", "param", "parameter", "parameters", "print", "python", "returned",
    "returns", "self", "set", "str", "string", "super", "true", "tuple", "type", "typeerror", "types",
    "typing", "used", "using", "value", "valueerror", "values", "version",
}  # fmt: skip

CLUSTERS = 20
NEAREST = 5
QUERIES = [
    "Lib/json/decoder.py",
    "Lib/calendar.py",
    "Lib/smtplib.py",
    "Lib/statistics.py",
    "site-packages/numpy/fft/_pocketfft.py",
    "site-packages/sklearn/cluster/_kmeans.py",
]


Matrix = NDArray[np.float32]
Names = NDArray[np.str_]


class Passage(NamedTuple):
    """One document: the characters of a file from `start` on. Sorts by folder, then file, then place."""

    folder: int
    name: str
    start: int
    path: str


class Topic(NamedTuple):
    """A cluster of documents: how many, the terms that set it apart, the files that are most like it."""

    documents: int
    terms: list[str]
    files: list[str]


def text(path: str) -> str:
    """The beginning of a file, unpacked if need be; empty if it cannot be read or is not text."""
    try:
        opened = gzip.open if path.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8", errors="replace") as file:
            content = str(file.read(READ))
    except (OSError, EOFError):
        return ""
    return "" if "\0" in content else content


def files() -> Iterator[tuple[int, str, str]]:
    """Every file of interest as (number of its folder, name for a reader, path), in sorted order."""
    paths = sysconfig.get_paths()
    folders = [
        ("Lib", paths["stdlib"], CODE_SUFFIXES),
        ("site-packages", paths["purelib"], CODE_SUFFIXES),
        ("/usr/share/doc", "/usr/share/doc", PROSE_SUFFIXES),
    ]
    for number, (title, root, suffixes) in enumerate(folders):
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = sorted(set(subfolders) - SKIPPED_FOLDERS)
            for name in sorted(names):
                if Path(name.removesuffix(".gz")).suffix in suffixes:
                    path = os.path.join(folder, name)
                    yield number, os.path.join(title, os.path.relpath(path, root)), path


def passages(count: int) -> list[Passage]:
    """Choose `count` passages: the first of every file, then the second of every file, and so on.

    So each file has its say, and the long ones say more only if there is room. Copies (licences, vendored
    modules) are taken once.
    """
    seen: set[bytes] = set()
    found: list[Passage] = []
    for folder, name, path in files():
        content = text(path)
        for start in range(0, len(content), STEP):
            piece = content[start : start + LENGTH]
            mark = hashlib.blake2b(piece.encode(), digest_size=16).digest()
            if len(piece) >= SHORTEST and mark not in seen:
                seen.add(mark)
                found.append(Passage(folder, name, start, path))
    found.sort(key=lambda passage: (passage.start, passage))
    return sorted(found[:count])


def contents(chosen: list[Passage]) -> Iterator[str]:
    """The text of each passage, one file in memory at a time."""
    for path, group in itertools.groupby(chosen, key=lambda passage: passage.path):
        content = text(path)
        for passage in group:
            yield content[passage.start : passage.start + LENGTH]


def weighted(chosen: list[Passage], count: int) -> tuple[Matrix, Names]:
    """The matrix of the passages (rows) and of their `count` most frequent terms (columns), and these terms.

    A number is the weight of a term in a passage: high if the passage has it often and few others have it.
    """
    vectorizer = TfidfVectorizer(
        token_pattern=WORD,
        stop_words=sorted(ENGLISH_STOP_WORDS | set(keyword.kwlist) | CODE_WORDS),
        min_df=5,
        max_df=0.15,
        max_features=count,
        sublinear_tf=True,
        dtype=np.float32,
    )
    return vectorizer.fit_transform(contents(chosen)).toarray(), vectorizer.get_feature_names_out()


def topic(matrix: Matrix, closeness: Matrix, names: Names, terms: Names, everywhere: Matrix) -> Topic:
    """Describe the documents of a cluster, the rows of `matrix`, by what they have more than `everywhere`.

    `closeness` says how near each of them is to the centre of the cluster, `names` in which file it is.
    """
    distinct = matrix.mean(axis=0) - everywhere
    best_terms = terms[np.argsort(-distinct, kind="stable")[:8]]
    best_names = names[np.argsort(-closeness, kind="stable")]
    return Topic(len(matrix), best_terms.tolist(), list(dict.fromkeys(best_names.tolist()))[:2])


def neighbours(matrix: Matrix, names: Names, queries: list[str]) -> dict[str, dict[str, float]]:
    """For each file of `queries` the files nearest to it, with their cosine similarity (at most 1).

    A file is as near as its nearest passage is to the mean of the passages of the file asked about.
    """
    centres = normalize(np.stack([matrix[names == query].mean(axis=0) for query in queries]))
    answers = {}
    for query, similarity in zip(queries, (matrix @ centres.T).T, strict=True):
        best: dict[str, float] = {}
        for row in np.argsort(-similarity, kind="stable"):
            if names[row] != query:
                best.setdefault(str(names[row]), float(similarity[row]))
            if len(best) == NEAREST:
                break
        answers[query] = best
    return answers


def digest(array: NDArray[Any]) -> str:
    """Tells two arrays apart if one bit of them differs."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=24_000, help="rows of the matrix (%(default)s)")
    parser.add_argument("--terms", type=int, default=4_000, help="columns of the matrix (%(default)s)")
    parser.add_argument("--components", type=int, default=100, help="directions of meaning (%(default)s)")
    parser.add_argument("--query", action="append", metavar="FILE", help="name the files nearest to this one")
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    parser.add_argument("--progress", action="store_true", help="tell the stages even without a terminal")
    args = parser.parse_args()

    def stage(what: str) -> None:
        if args.progress or sys.stderr.isatty():
            print(f"topics: {what}", file=sys.stderr, flush=True)

    stage("looking for text")
    chosen = passages(args.documents)
    names = np.array([passage.name for passage in chosen])
    queries = args.query or [query for query in QUERIES if query in names]
    if unknown := [query for query in queries if query not in names]:
        parser.error(f"not among the documents: {', '.join(unknown)}")

    stage("counting words")
    matrix, terms = weighted(chosen, args.terms)

    stage(f"reducing {matrix.shape[0]:,} x {matrix.shape[1]:,} numbers ({matrix.nbytes / 1e6:.0f} MB)")
    svd = TruncatedSVD(args.components, random_state=0)
    vectors = normalize(svd.fit_transform(matrix))

    stage("clustering")
    kmeans = KMeans(CLUSTERS, n_init=1, random_state=0).fit(vectors)

    stage("naming the clusters")
    everywhere = matrix.mean(axis=0)
    topics = []
    for cluster, centre in enumerate(kmeans.cluster_centers_):
        members = np.flatnonzero(kmeans.labels_ == cluster)
        closeness = vectors[members] @ centre
        topics.append(topic(matrix[members], closeness, names[members], terms, everywhere))
    topics.sort(key=lambda found: -found.documents)

    stage("looking for neighbours")
    answers = neighbours(matrix, names, queries)

    print(f"{len(names):,} documents of {len(set(names)):,} files, {len(terms):,} terms\n")
    print("What the text is about (topics by size: their terms, their most typical files)")
    for found in topics:
        print(f"{found.documents:8,}  {', '.join(found.terms)}\n          {'  '.join(found.files)}")
    for query, nearest in answers.items():
        print(f"\nNearest to {query}")
        for name, similarity in nearest.items():
            print(f"    {similarity:.2f}  {name}")

    if args.out:
        results = {
            "documents": digest(np.array([f"{passage.name} {passage.start}" for passage in chosen])),
            "components": digest(svd.components_),
            "vectors": digest(vectors),
            "labels": kmeans.labels_.tolist(),
            "topics": [found._asdict() for found in topics],
            "neighbours": answers,
        }
        args.out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
