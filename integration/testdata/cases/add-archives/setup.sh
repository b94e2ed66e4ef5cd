mkdir t; echo a > t/a; mkdir -m 750 t/d; echo b > t/d/b; ln -s ../a t/d/l; ln t/a t/h; chmod 4711 t/a; touch -h -d @1600000000 t/a t/d/b t/d/l t/d t
tar --owner=1000 --group=50 --sort=name -C t -cf a.tar .
gzip -nk a.tar; cp a.tar.gz a.tgz; bzip2 -k a.tar; xz -k a.tar; zstd -q a.tar; cp a.tar noext; echo f > f; echo plain | gzip -n > a.gz; rm -r t
head -c 200 a.tar > trunc.tar; tar -cf empty.tar -T /dev/null; : > zero
