"""Uses putio.py as its documentation shows: folders, uploads, listings, names, moves, downloads."""

import os

import putiopy

url = os.environ.get("EMULATOR_URL")
if url:
    putiopy.BASE_URL = url + "/v2"
    putiopy.UPLOAD_URL = url + "/v2/files/upload"
    putiopy.TUS_UPLOAD_URL = url + "/files/"

client = putiopy.Client(os.environ["EMULATOR_TOKEN"], timeout=30)
assert client.Account.info()["info"]["username"] == "user"

folder = client.File.create_folder("folder")
other = client.File.create_folder("other")
assert folder.content_type == "application/x-directory"
try:
    client.File.create_folder("folder")
    raise SystemExit("a second folder of the same name was created")
except putiopy.ClientError as error:
    assert error.type == "NAME_ALREADY_EXIST", error.type

client.File.upload_tus("source.bin", parent_id=folder.id)
open("empty.bin", "wb").close()
client.File.upload_tus("empty.bin", parent_id=folder.id)
with open("form.txt", "w") as file:
    file.write("uploaded as a form")
client.File.upload("form.txt", parent_id=folder.id)

listed = {file.name: file for file in client.File.list(parent_id=folder.id)}
assert sorted(listed) == ["empty.bin", "form.txt", "source.bin"], listed
paged = client.File.list(parent_id=folder.id, per_page=1)
assert len(paged) == 3, paged
big = listed["source.bin"]
assert big.size == os.path.getsize("source.bin")
assert len(client.File.get(0).dir()) == 2

big.rename("renamed.bin")
big.move(other.id)
big = client.File.get(big.id)
assert (big.name, big.parent_id) == ("renamed.bin", other.id)

# Downloading compares the checksum, and goes on with what is there.
with open("source.bin", "rb") as source, open("renamed.bin", "wb") as begun:
    begun.write(source.read(1_000_000))
big.download(dest=".")
big.delete()
try:
    client.File.get(big.id)
    raise SystemExit("a deleted file is still there")
except putiopy.ClientError as error:
    assert error.type == "NotFound", error.type
client.File.delete_multi([big.id, 12345678], skip_nonexistents=True)
client.close()
print("done")
