"""multipart/form-data, in which clickhouse-connect sends long parameters and external data.

starlette leaves this to python-multipart, another dependency, for what is one split of a body that is in memory anyway.
"""

from email.message import Message

from loadtest.store.engine import failure


def boundary(content_type: str) -> bytes | None:
    """The boundary that a Content-Type names; None if the body is no form."""
    header = Message()
    header["Content-Type"] = content_type
    return header.get_boundary("").encode() if header.get_content_type() == "multipart/form-data" else None


def parse(body: bytes, boundary: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """Fields, and the files' contents; both by name."""
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    if not boundary or b"--" + boundary + b"--" not in body:
        raise failure(33, "CANNOT_READ_ALL_DATA", "the form has no end")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, separator, content = part.partition(b"\r\n\r\n")
        disposition = _disposition(head)
        name = disposition.get_param("name", header="content-disposition")
        if not separator or not isinstance(name, str):
            raise failure(27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED", "a part of the form has no name")
        if disposition.get_filename() is None:
            fields[name] = content.decode()
        else:
            files[name] = content
    return fields, files


def _disposition(head: bytes) -> Message:
    header = Message()
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            header["Content-Disposition"] = value.strip()
    return header
