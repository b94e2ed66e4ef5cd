mkdir -p d/e; for f in a.txt b.txt a.md d/x.txt d/y.md d/e/z.txt d/e/w.md; do echo $f > $f; done
