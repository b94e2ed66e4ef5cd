# Archives in the forms that people ADD: with a "." entry, with owners, with
# a global PAX header, compressed in every way; and what only looks like one.
mkdir t t/d && echo a > t/a && echo b > t/d/b && chmod 750 t/d && ln -s a t/l && ln t/a t/h
tar --owner=1000 --group=50 --mtime=@1600000000 --sort=name -C t -cf dot.tar .
tar --owner=33 --group=33 --mtime=@1600000000 --sort=name -C t -czf gz.tar.gz a d
tar --owner=0 --group=0 --mtime=@1600000000 --sort=name -C t -cjf bz.tbz a
tar --owner=0 --group=0 --mtime=@1600000000 --sort=name -C t -cJf xz.tar.xz a
tar --owner=0 --group=0 --mtime=@1600000000 --sort=name --format=posix --pax-option=globexthdr.name=g,comment=global -C t -cf pax.tar a
echo plain | gzip -n > plain.gz
echo 'not an archive' > fake.tar
rm -r t
