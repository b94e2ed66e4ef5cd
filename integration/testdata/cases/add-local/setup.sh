mkdir t dir && echo a > t/a && echo b > t/b
tar --owner=1000 --group=50 --mtime=@1600000000 --sort=name -C t -cf a.tar a
tar --owner=0 --group=0 --mtime=@1600000000 --sort=name -C t -cf b.tar b && gzip -n b.tar
cp a.tar dir/inside.tar && echo plain > plain && rm -r t
