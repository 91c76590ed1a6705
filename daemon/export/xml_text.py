"""Text for XML: what no XML file can hold becomes the sign for an unknown character."""


def xml_text(text: str) -> str:
    """The text without control characters, lone surrogates and non-characters.

    >>> xml_text("a\\x00b")
    'a\\ufffdb'
    """
    return "".join(character if _allowed(character) else "\ufffd" for character in text)


def _allowed(character: str) -> bool:
    return character >= " " and character not in "\ufffe\uffff" and not "\ud800" <= character <= "\udfff"
