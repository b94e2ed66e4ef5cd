mkdir t; echo a > t/a; mkdir t/d; ln -s a t/l; touch -h -d @1600000000 t/a t/l t/d t; tar --owner=0 --group=0 --sort=name -C t -cf a.tar a d l; rm -r t; echo f > f
