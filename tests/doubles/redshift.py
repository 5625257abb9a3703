"""Redshift's double: a PostgreSQL server behind a wire that refuses what Redshift refuses.

    redshift.py PORT HOST PORT_OF_POSTGRESQL

Every statement on its way to the server is read. What Redshift has not, by its documentation, ends in the error that Redshift
would give (`REFUSED`, each with its reason); what only Redshift has is spelled as PostgreSQL has it (`SPELLED`), with the functions,
types and views of `redshift.sql`, which the server's databases were made with. Answers pass as they are, but for errors of
serialization, which Redshift reports in its own way. It listens on the loopback only and speaks no TLS.
"""

import asyncio
import re
import struct
import sys

UNSUPPORTED, SYNTAX, NO_FUNCTION, NO_TABLE, NO_TYPE, NO_SETTING = "0A000", "42601", "42883", "42P01", "42704", "42704"

# A pattern of the statement in lower case, with texts as '' and names as "", the error's code, and why. Most stand in the
# Database Developer Guide: "Unsupported PostgreSQL features", "… data types", "… functions", and each command's own page.
REFUSED = [
    (r"\bis (not )?distinct from\b", SYNTAX, "IS DISTINCT FROM is among the functions that are not supported"),
    (r"\bon conflict\b", SYNTAX, "INSERT has no ON CONFLICT: no key is enforced"),
    (r"\breturning\b", SYNTAX, "INSERT, UPDATE and DELETE return no rows"),
    (r"\bcopy\b[\s\S]*\b(to stdout|from stdin)\b", SYNTAX, "COPY reads from S3 and the like, and nothing goes out by it"),
    (r"\bcreate table if not exists [^\s(]+ as\b", SYNTAX, "CREATE TABLE AS has no IF NOT EXISTS"),
    (r"\bunlogged\b", SYNTAX, "no table is unlogged"),
    (r"\bcreate (unique )?index\b", UNSUPPORTED, "there are no indexes"),
    (r"\bctid\b|\btableoid\b|\bxmin\b|::tid\b", "42703", "there are no system columns"),
    (r"\bjsonb?\b|\bto_jsonb?\b|\bjsonb?_(?!serialize|parse|extract|array_length|typeof|size)\w*", NO_TYPE, "there is no JSON type but SUPER"),
    (r"\w\[\]|\barray\[|\bunnest\b|\barray_agg\b", UNSUPPORTED, "there are no arrays"),
    (r"\bdistinct on\b", UNSUPPORTED, "SELECT has no DISTINCT ON"),
    (r"\blateral\b", SYNTAX, "there is no LATERAL"),
    (r"\bgenerate_(series|subscripts)\b", NO_FUNCTION, "functions that return sets are not supported"),
    (r"\bfilter\s*\(", SYNTAX, "aggregates have no FILTER"),
    (r"\bpg_(try_)?advisory\w*", NO_FUNCTION, "there are no advisory locks"),
    (r"\brow\s*\(", UNSUPPORTED, "there are no row constructors"),
    (r"(?<![\w\"])\([^()]*,[^()]*\)\s+(not\s+)?in\s*\(", UNSUPPORTED, "there are no row constructors"),
    (r"\bdelete from [^\s;]+ (as )?(?!where\b|using\b)[a-z_]", SYNTAX, "DELETE gives its table no other name"),
    (r"\bfrom\s*\(\s*values\b", SYNTAX, "a list of VALUES is no table"),
    (r"\btablesample\b", SYNTAX, "there is no TABLESAMPLE"),
    (r"\b(clock_timestamp|transaction_timestamp|statement_timestamp|pg_sleep|justify_\w+)\b", NO_FUNCTION, "not among the functions"),
    (r"\b(now\(\)|current_timestamp|localtimestamp)[\s\S]*\bfrom\b", UNSUPPORTED, "the leader node alone knows it"),
    (r"\b(string_agg|sha256|convert_to|convert_from|encode|pg_column_size|pg_relation_filenode|format)\s*\(", NO_FUNCTION, "not among the functions"),
    (r"[(,] *(?:\"\"|\w+) (bytea|uuid|inet|cidr|macaddr|money|citext|hstore|xml|serial|bigserial|bit|oid|interval)\b *[,)]", NO_TYPE, "there is no such type"),
    (r"::\s*(bytea|uuid|inet|jsonb?|regclass|tid)\b|\bas (bytea|uuid|inet|jsonb?)\)", NO_TYPE, "there is no such type"),
    (r"\bcreate (type|domain|extension|sequence|collation|trigger|rule|operator|aggregate|cast|tablespace)\b", SYNTAX, "there is no such thing to create"),
    (r"\bcollate \"", SYNTAX, "there are no collations of PostgreSQL's"),
    (r"^\s*(savepoint|truncate|release|listen|notify|reindex|cluster|do)\b", UNSUPPORTED, "TRUNCATE commits, the others are not there"),
    (r"\brollback to\b", UNSUPPORTED, "there are no savepoints"),
    (r"\block table\b[\s\S]*\bin\b[\s\S]*\bmode\b", SYNTAX, "LOCK takes a table and no mode"),
    (r"\bfor (update|share)\b(?! of)(?!.*\bfetch\b)", UNSUPPORTED, "rows are not locked"),
    (r"\bset (local )?(session )?(intervalstyle|synchronize_seqscans|max_parallel\w*|min_parallel\w*|parallel_\w+|jit|enable_hashjoin|standard_conforming_strings)\b", NO_SETTING, "unrecognized configuration parameter"),
    (r"\b(set_config|current_setting)\s*\(\s*''\s*,", NO_FUNCTION, "the leader node alone knows it"),
    (r"\bpg_(range|enum|collation|settings_ext|matviews|sequences)\b", NO_TABLE, "no such relation in the catalogue"),
    (r"\bbackend_start\b|\bpg_stat_activity\b[\s\S]*\bpid\b", "42703", "pg_stat_activity has other columns: procpid, and no beginning"),
    (r"\bfetch (all|forward all)\b", UNSUPPORTED, "not on a cluster of one node"),
    (r"\bfetch (forward )?(1\d{3}[1-9]|1\d*[1-9]\d{2,}|[2-9]\d{3,}|1\d{4,})\b", UNSUPPORTED, "a cluster of one node hands out 1,000 rows at once"),
    (r"\balter table\b[\s\S]*\bdrop default\b", UNSUPPORTED, "no default can be taken away"),
    (r"\bwindow\b\s+\w+\s+as\b|\bgroups between\b", SYNTAX, "no such window"),
    (r"\bgrant connect\b", SYNTAX, "databases have no right to connect"),
]
REFUSED = [(re.compile(pattern), code, why) for pattern, code, why in REFUSED]

# What Redshift has, in PostgreSQL's spelling.
SPELLED = [
    # `text` is another word for a varchar of 256 bytes.
    (re.compile(r"\b(as|::)\s*text\b", re.I), r"\1 varchar(256)"),
    # Parts of a date stand there as bare words.
    (re.compile(r"\b(datediff|dateadd)\s*\(\s*([a-z]+)\s*,", re.I), r"\1('\2',"),
    # A setting without a dot must be one of PostgreSQL's own.
    (re.compile(r"\bset\s+query_group\s+to\b", re.I), "set levin.query_group to"),
    # A type's own word, where both have one under two names.
    (re.compile(r"\bvarbyte\(\d+\)", re.I), "varbyte"),
]

# Every transaction is serializable, and a backslash escapes in a text.
SETTINGS = (
    "-c default_transaction_isolation=serializable -c standard_conforming_strings=off -c escape_string_warning=off"
    " -c backslash_quote=on"
)
PROTOCOL = 0x30000

PIECES = re.compile(
    r"(?P<text>'(?:[^'\\]|''|\\.)*')|(?P<name>\"(?:[^\"]|\"\")*\")|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<dollars>\$(\w*)\$.*?\$\5\$)",
    re.S,
)


def lower(text):
    """Only these letters are folded; all others stay as they are."""
    return re.sub("[A-Z]+", lambda found: found[0].lower(), text)


def looked_at(statement):
    """The statement without what stands in quotes and comments."""
    hide = lambda found: "''" if found["text"] or found["dollars"] else '""' if found["name"] else " "
    return re.sub(r"\s+", " ", lower(PIECES.sub(hide, statement))).strip()


def spelled(statement):
    """The statement as PostgreSQL takes it. Names are in lower case, whether they stand in quotes or not."""
    parts, at = [], 0

    def code(text):
        for pattern, form in SPELLED:
            text = pattern.sub(form, text)
        return text

    for found in PIECES.finditer(statement):
        parts += [code(statement[at : found.start()]), lower(found[0]) if found["name"] else found[0]]
        at = found.end()
    # A rule may need to see what stands before and behind a quoted piece; none of them does.
    return "".join(parts + [code(statement[at:])])


def refusal(statement):
    seen = looked_at(statement)
    for pattern, code, why in REFUSED:
        found = pattern.search(seen)
        if found:
            return code, f"Redshift refuses `{found[0].strip()[:80]}`: {why}"
    return None


class Connection:
    """One client and its server. A statement that is refused reaches the server as one that no server understands, so that
    the transaction ends as it would have; the server's error is given Redshift's words on its way back."""

    MARK = "levin_refused_"

    def __init__(self):
        self.refused = []

    def statement(self, text):
        why = refusal(text)
        if why is None:
            return spelled(text)
        self.refused.append(why)
        return f"{self.MARK}{len(self.refused) - 1} !"

    def to_server(self, kind, body):
        if kind == b"Q":
            return self.statement(body[:-1].decode()).encode() + b"\0"
        if kind == b"P":
            name, text, rest = body.split(b"\0", 2)
            return name + b"\0" + self.statement(text.decode()).encode() + b"\0" + rest
        return body

    def to_client(self, kind, body):
        if kind == b"S" and body.startswith(b"server_version\0"):
            return b"server_version\x008.0.2\0"
        if kind != b"E":
            return body
        fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
        number = re.search(self.MARK + r"(\d+)", fields.get(b"M", b"").decode())
        if number:
            code, why = self.refused[int(number[1])]
            fields[b"C"], fields[b"M"] = code.encode(), why.encode()
        elif fields.get(b"C") in (b"40001", b"40P01"):
            fields[b"C"], fields[b"M"] = b"XX000", b"1023"
            fields[b"D"] = b"Serializable isolation violation on table - 100167, transactions forming the cycle are: 1, 2 (pid:1)"
            fields.pop(b"H", None)
        elif fields.get(b"C") == b"57014" and b"statement timeout" in fields.get(b"M", b""):
            fields[b"M"] = b"Query (17) cancelled on system's request"
        elif fields.get(b"C") == b"57014":
            fields[b"M"] = b"Query (17) cancelled on user's request"
        return b"".join(key + value + b"\0" for key, value in fields.items()) + b"\0"


async def relay(source, target, change):
    """Passes messages on until one side ends. Rows of results, which are many, pass in the pieces in which they come."""
    buffer = bytearray()
    try:
        while piece := await source.read(1 << 18):
            buffer += piece
            at = begun = 0
            while len(buffer) - at >= 5:
                kind, length = buffer[at], int.from_bytes(buffer[at + 1 : at + 5], "big") + 1
                if len(buffer) - at < length:
                    break
                if kind in b"QPSE":
                    target.write(bytes(buffer[begun:at]))
                    body = change(bytes((kind,)), bytes(buffer[at + 5 : at + length]))
                    target.write(bytes((kind,)) + struct.pack("!I", len(body) + 4) + body)
                    begun = at + length
                at += length
            target.write(bytes(buffer[begun:at]))
            del buffer[:at]
            await target.drain()
    except (ConnectionError, OSError):
        pass
    finally:
        target.close()


async def serve(client, answer, upstream):
    server_writer = None
    try:
        while True:
            length = struct.unpack("!I", await client.readexactly(4))[0]
            startup = await client.readexactly(length - 4)
            code = struct.unpack("!I", startup[:4])[0]
            if code not in (80877103, 80877104):
                break
            # No TLS, and no Kerberos.
            answer.write(b"N")
            await answer.drain()
        server, server_writer = await asyncio.open_connection(*upstream, limit=1 << 20)
        if code == PROTOCOL:
            startup = startup[:-1] + b"options\0" + SETTINGS.encode() + b"\0\0"
        server_writer.write(struct.pack("!I", len(startup) + 4) + startup)
        await server_writer.drain()
        connection = Connection()
        await asyncio.gather(
            relay(client, server_writer, connection.to_server), relay(server, answer, connection.to_client)
        )
    except (asyncio.IncompleteReadError, ConnectionError, OSError):
        pass
    finally:
        for writer in (answer, server_writer):
            if writer is not None:
                writer.close()


async def main(port, host, upstream_port):
    upstream = (host, upstream_port)
    server = await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, upstream), "127.0.0.1", port, limit=1 << 20
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
