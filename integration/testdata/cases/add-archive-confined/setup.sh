python3 - <<P
import tarfile, io
t = tarfile.open("a.tar", "w")
for n in ["ok", "../up", "/abs", "./dot", "x/../../up2"]:
    i = tarfile.TarInfo(n); i.size = 1; i.mtime = 1600000000; t.addfile(i, io.BytesIO(b"x"))
t.close()
P
