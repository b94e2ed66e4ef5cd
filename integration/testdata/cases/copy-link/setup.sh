echo f > f; mkdir d; echo y > d/y; mkdir t; echo z > t/z; touch -d @1600000000 t/z t; tar --owner=0 --group=0 --sort=name -C t -cf a.tar .; rm -r t
