"""Finds rows and fields in a block of CSV (RFC 4180) as places, without making an object for any of them.

A quoted field may hold delimiters, newlines and doubled quotes; a quote inside an unquoted field is data.
"""

from __future__ import annotations

from numba import njit

# What `counts` says of a row instead of its number of fields.
UNCLOSED_QUOTE = -2  # the row is taken to be its first line alone, so one stray quote cannot swallow the file
TEXT_AFTER_QUOTE = -3


@njit(cache=True, nogil=True, boundscheck=False)
def scan_csv(  # type: ignore[no-untyped-def]
    buffer, at, delimiter, is_final, starts, lengths, escapes, row_starts, row_ends, counts
):
    """Scan whole rows from `at` on until the block or the room in the arrays ends; blank lines are no rows.

    Args:
        buffer: bytes, uint8 [bytes].
        delimiter: the byte between fields.
        is_final: nothing follows this block, so what stands at its end is whole.
        starts, lengths, escapes: [fields, rows]; places in the buffer without the quotes, and 1 where doubled
            quotes stand inside. Fields past the first dimension are counted only.
        row_starts, row_ends, counts: [rows]; the row without its newline, and its number of fields or a code above.

    Returns:
        Rows found and the place of the first byte not used.
    """
    end = buffer.shape[0]
    width = starts.shape[0]
    room = row_starts.shape[0]
    rows = 0
    while at < end and rows < room:
        row_start = at
        field = 0
        verdict = 0
        is_whole = False
        row_end = end
        while True:  # one field
            is_escaped = 0
            if at < end and buffer[at] == 34:
                at += 1
                start = at
                is_closed = False
                while at < end:
                    if buffer[at] == 34:
                        if at + 1 < end and buffer[at + 1] == 34:
                            is_escaped = 1
                            at += 2
                            continue
                        if at + 1 >= end and not is_final:
                            break
                        is_closed = True
                        break
                    at += 1
                if not is_closed:
                    verdict = -2
                    break
                stop = at
                at += 1
                if at < end and buffer[at] == 13 and at + 1 < end and buffer[at + 1] == 10:
                    at += 1
                if at < end and buffer[at] != delimiter and buffer[at] != 10:
                    if not (buffer[at] == 13 and at + 1 >= end):
                        verdict = -3
                    while at < end and buffer[at] != delimiter and buffer[at] != 10:
                        at += 1
            else:
                start = at
                while at < end and buffer[at] != delimiter and buffer[at] != 10:
                    at += 1
                stop = at
                if (at < end and buffer[at] == 10 and stop > start and buffer[stop - 1] == 13) or (
                    at >= end and is_final and stop > start and buffer[stop - 1] == 13
                ):
                    stop -= 1
            if field < width:
                starts[field, rows] = start
                lengths[field, rows] = stop - start
                escapes[field, rows] = is_escaped
            field += 1
            if at >= end:
                is_whole = is_final
                row_end = end
                break
            if buffer[at] == 10:
                is_whole = True
                row_end = at
                at += 1
                break
            at += 1
        if verdict == -2:
            if not is_final:
                return rows, row_start
            at = row_start
            while at < end and buffer[at] != 10:
                at += 1
            row_end = at
            at = min(at + 1, end)
            is_whole = True
        if not is_whole:
            return rows, row_start
        if row_end > row_start and buffer[row_end - 1] == 13:
            row_end -= 1
        if row_end == row_start:
            continue
        row_starts[rows] = row_start
        row_ends[rows] = row_end
        counts[rows] = verdict if verdict < 0 else field
        rows += 1
    return rows, at


@njit(cache=True, nogil=True, boundscheck=False)
def find_newlines(buffer, at, is_final, row_starts, row_ends):  # type: ignore[no-untyped-def]
    """Whole lines from `at` on that are not blank; shapes and result as in `scan_csv`."""
    end = buffer.shape[0]
    rows = 0
    while at < end and rows < row_starts.shape[0]:
        stop = at
        is_blank = True
        while stop < end and buffer[stop] != 10:
            if buffer[stop] > 32:
                is_blank = False
            stop += 1
        if stop >= end and not is_final:
            return rows, at
        if not is_blank:
            row_starts[rows] = at
            row_ends[rows] = stop - 1 if buffer[stop - 1] == 13 else stop
            rows += 1
        at = min(stop + 1, end)
    return rows, at
