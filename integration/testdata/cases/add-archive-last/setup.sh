mkdir t && echo a > t/a && mkdir t/etc && echo b > t/etc/b
tar --owner=0 --group=0 --mtime=@1600000000 --sort=name -C t -cf a.tar .
rm -r t
