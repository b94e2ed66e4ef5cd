touch home.txt hom.md home.md; mkdir -p homdir/sub; touch homdir/a.txt homdir/sub/b.txt homdir/c
