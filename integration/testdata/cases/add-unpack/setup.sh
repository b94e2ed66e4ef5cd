mkdir -p t/d && echo a > t/a && echo b > t/d/b
tar --owner=1000 --group=50 --mtime=@1600000000 --sort=name -C t -cf a.tar a d && gzip -nk a.tar && rm -r t
