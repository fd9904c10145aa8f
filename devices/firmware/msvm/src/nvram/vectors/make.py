"""Makes the authenticated writes of this folder; see README.md.

Usage: make.py FOLDER-FOR-KEYS, with openssl and sbvarsign in PATH. Needs Python's library only.
"""

import pathlib
import struct
import subprocess
import sys
import uuid

OUT = pathlib.Path(__file__).parent
WORK = pathlib.Path(sys.argv[1])
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
SECURITY = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
PRIVATE = "11111111-2222-3333-4444-555555555555"
PKCS7 = "4aafd29d-68df-49ee-8aa9-347d375665a7"
X509 = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
SHA256 = "c1c41626-504c-4092-aca9-41f936934328"
OWNER = PRIVATE
KEPT, APPEND, VOLATILE = 0x27, 0x67, 0x26


def run(*words):
    subprocess.run(words, check=True, cwd=WORK, stderr=subprocess.DEVNULL)


def certificate(name, issuer=None, ca=True, bits=2048, subject=None, options=(), path=None):
    words = ["openssl", "req", "-x509", "-newkey", f"rsa:{bits}", "-nodes", "-sha256", "-days", "1"]
    words += ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={subject or name}"]
    limit = "" if path is None else f",pathlen:{path}"
    constraints = f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}{limit}"
    words += ["-addext", constraints, *options]
    words += ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"] if issuer else []
    config = WORK / "empty.cnf"
    config.write_text("[req]\ndistinguished_name=dn\n[dn]\n")
    run(*words, "-config", str(config))


def der(name):
    words = ["openssl", "x509", "-in", f"{name}.pem", "-outform", "DER"]
    return subprocess.run(words, check=True, cwd=WORK, capture_output=True).stdout


def signature_list(kind, *signatures):
    owned = [uuid.UUID(OWNER).bytes_le + signature for signature in signatures]
    total = b"".join(owned)
    head = struct.pack("<III", 28 + len(total), 0, len(owned[0]))
    return uuid.UUID(kind).bytes_le + head + total


def key_list(*names):
    return b"".join(signature_list(X509, der(name)) for name in names)


def hashes(*bytes_):
    return signature_list(SHA256, *[bytes([byte]) * 32 for byte in bytes_])


def openssl(out, guid, name, value, signer, year, attributes=KEPT, *, chain=(), options=("-noattr",),
            digest="sha256", signed=None, signed_year=None):
    """`signed` and `signed_year`: what the signature is of, if that is not what is written."""
    def time(year):
        return struct.pack("<HBBBBBBIhBB", year, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0)
    message = name.encode("utf-16-le") + uuid.UUID(guid).bytes_le + struct.pack("<I", attributes)
    message += time(signed_year or year) + (value if signed is None else signed)
    (WORK / "message").write_bytes(message)
    (WORK / "chain.pem").write_text("".join((WORK / f"{n}.pem").read_text() for n in chain))
    words = ["openssl", "cms", "-sign", "-binary", "-in", "message", "-signer", f"{signer}.pem"]
    words += ["-inkey", f"{signer}.key", "-md", digest, "-outform", "DER", "-out", "signature"]
    words += ["-certfile", "chain.pem"] if chain else []
    run(*words, *options)
    signature = (WORK / "signature").read_bytes()
    head = struct.pack("<IHH", 24 + len(signature), 0x200, 0xEF1) + uuid.UUID(PKCS7).bytes_le
    write = struct.pack("<I", attributes) + time(year) + head + signature + value
    (OUT / f"{out}.bin").write_bytes(write)


def sbvarsign(out, name, value, signer, attributes="NON_VOLATILE,BOOTSERVICE_ACCESS,RUNTIME_ACCESS"):
    (WORK / "value").write_bytes(value)
    run("sbvarsign", "--include-attrs", "--key", f"{signer}.key", "--cert", f"{signer}.pem",
        "--attr", attributes, "--output", str(OUT.resolve() / f"{out}.bin"), name, "value")


certificate("pk")
certificate("pk-2")
certificate("kek", bits=3072)
certificate("kek-middle", "kek")
certificate("kek-leaf", "kek-middle", ca=False)
certificate("kek-rogue", "kek-leaf", ca=False)
certificate("kek-short", "kek", options=("-addext", "keyUsage=keyCertSign"), path=0)
certificate("kek-short-leaf", "kek-short", ca=False)
certificate("kek-below", "kek-short")
certificate("kek-below-leaf", "kek-below", ca=False)
certificate("kek-usage", "kek", options=("-addext", "keyUsage=digitalSignature"))
certificate("kek-usage-leaf", "kek-usage", ca=False)
certificate("kek-critical", "kek", options=("-addext", "1.2.3.4=critical,ASN1:NULL"))
certificate("other")
certificate("private", bits=4096)
certificate("forged", subject="private")

# The time of these is that of their making.
sbvarsign("pk", "PK", key_list("pk"), "pk")
sbvarsign("kek", "KEK", key_list("kek"), "pk")
sbvarsign("db", "db", hashes(1, 2), "kek")

openssl("pk-next", GLOBAL, "PK", key_list("pk-2"), "pk", 2030)
openssl("pk-two", GLOBAL, "PK", key_list("pk", "pk-2"), "pk", 2030)
openssl("pk-append", GLOBAL, "PK", key_list("pk-2"), "pk", 2030, APPEND)
openssl("pk-by-kek", GLOBAL, "PK", key_list("pk-2"), "kek", 2030)
openssl("pk-delete", GLOBAL, "PK", b"", "pk", 2031)
openssl("kek-by-kek", GLOBAL, "KEK", key_list("kek", "other"), "kek", 2030)
openssl("kek-by-pk-2", GLOBAL, "KEK", key_list("kek", "other"), "pk-2", 2030)
openssl("db-by-pk", SECURITY, "db", hashes(3), "pk", 2030)
openssl("db-by-other", SECURITY, "db", hashes(3), "other", 2030)
openssl("db-older", SECURITY, "db", hashes(4), "kek", 2010)
openssl("db-append-older", SECURITY, "db", hashes(2, 5, 5), "kek", 2010, APPEND)
openssl("db-delete", SECURITY, "db", b"", "kek", 2031)
openssl("db-no-list", SECURITY, "db", b"no list", "kek", 2030)
openssl("db-changed", SECURITY, "db", hashes(6), "kek", 2030, signed=hashes(7))
openssl("db-other-time", SECURITY, "db", hashes(6), "kek", 2030, signed_year=2029)
openssl("db-sha512", SECURITY, "db", hashes(6), "kek", 2030, digest="sha512")
openssl("db-attributes", SECURITY, "db", hashes(8), "kek", 2030, options=())
openssl("db-attributes-changed", SECURITY, "db", hashes(8), "kek", 2030, options=(), signed=b"")
openssl("db-content", SECURITY, "db", hashes(8), "kek", 2030, options=("-noattr", "-nodetach"))
openssl("db-no-certificate", SECURITY, "db", hashes(8), "kek", 2030,
        options=("-noattr", "-nocerts"))
openssl("dbx-chain", SECURITY, "dbx", hashes(9), "kek-leaf", 2030, chain=["kek-middle"])
openssl("dbx-no-middle", SECURITY, "dbx", hashes(9), "kek-leaf", 2030)
openssl("dbx-rogue", SECURITY, "dbx", hashes(9), "kek-rogue", 2030,
        chain=["kek-leaf", "kek-middle"])
openssl("dbx-short", SECURITY, "dbx", hashes(10), "kek-short-leaf", 2031, chain=["kek-short"])
openssl("dbx-too-long", SECURITY, "dbx", hashes(9), "kek-below-leaf", 2030,
        chain=["kek-below", "kek-short"])
openssl("dbx-usage", SECURITY, "dbx", hashes(9), "kek-usage-leaf", 2030, chain=["kek-usage"])
openssl("dbx-critical", SECURITY, "dbx", hashes(9), "kek-critical", 2030)

openssl("private", PRIVATE, "Mine", b"one", "private", 2020)
openssl("private-next", PRIVATE, "Mine", b"two", "private", 2021, options=())
openssl("private-append", PRIVATE, "Mine", b"+", "private", 2019, APPEND)
openssl("private-append-later", PRIVATE, "Mine", b"+", "private", 2022, APPEND)
openssl("private-forged", PRIVATE, "Mine", b"bad", "forged", 2023)
openssl("private-delete", PRIVATE, "Mine", b"", "private", 2024)
openssl("private-volatile", PRIVATE, "Mine", b"one", "private", 2020, VOLATILE)
