echo a > a; touch -d @1600000000 a; tar --owner=0 --group=0 -cf a.tar a; gzip -nk a.tar; echo f > f
