mkdir -p src/d other; touch a.txt b.md src/x.c src/x.o src/keep.o src/d/y.o other/z.txt
