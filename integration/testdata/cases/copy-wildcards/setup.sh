touch a.txt ab.txt b.txt c.txt 'sp ace.txt' 'arr[0].lit' one.x one.y
mkdir -p d1/e d2; echo 1 > d1/x.txt; echo 2 > d2/y.txt; echo e > d1/e/f; echo z > d2/z
for f in *.txt *.lit one.*; do echo $f > "$f"; done
