"""Bytes made from good ones: cut, overwritten, filled with what parsers trip over, copied over themselves."""

from random import Random

TOKENS = (
    *(b"", b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\t", b" ", b'"', b"'", b",", b";", b":", b"="),
    *(b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"9" * 400, b"1" * 5000, b"0x", b"1_0", b"1,5", b"2147483648"),
    *(b"4294967295", b"18446744073709551616", b"1e-320", b"null", b"true", b"{}", b"[]", b"[" * 4000, b"{" * 4000),
    *(b"</", b"<a>", b"&#0;", b"&a;", b"]]>", b"..", b"../../", b"/dev/zero", b"C:\\", b"%00", b"\\u0000", b"\\ud800"),
    *("é".encode(), "µ".encode(), "\u202e".encode(), "٣".encode(), b"\xc3\x28", b"=cmd()", b"A01", b"AF48", b"ZZ99"),
    *(
        bytes(4),
        b"\xff" * 4,
        b"\xff" * 8,
        b"\x01\0\0\0",
        b"\0\0\0\x80",
        b"\xff\xff\xff\x7f",
        b"PK\x03\x04",
        b"\x80" * 10,
    ),
)


def mutated(content: bytes, chance: Random) -> bytes:
    """One to six changes, more of them near the beginning, where formats say what they are."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        at = int(len(found) * chance.random() ** chance.choice((1, 1, 3)))
        match chance.randrange(6):
            case 0:  # a few bits
                for place in range(at, min(len(found), at + chance.choice((1, 1, 2, 4, 8)))):
                    found[place] ^= 1 << chance.randrange(8)
            case 1:  # over what is there: what follows keeps its place
                token = chance.choice(TOKENS)
                found[at : at + len(token)] = token
            case 2:
                found[at:at] = chance.choice(TOKENS)
            case 3:
                del found[at : at + chance.choice((1, 2, 4, 16, 64, 512))]
            case 4:  # a piece of it somewhere else, once or often
                start = int(len(found) * chance.random())
                piece = found[start : start + chance.choice((1, 4, 16, 80))]
                found[at:at] = piece * chance.choice((1, 1, 2, 30, 300))
            case _:
                found[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    return bytes(found)
