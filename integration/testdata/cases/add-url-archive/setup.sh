mkdir -p ../www ../tree/d && cd ../tree
echo f > d/f && chmod 640 d/f && ln -s f d/l && chmod 700 d
pack="tar --sort=name --mtime=@1000000000 --owner=5 --group=6 --numeric-owner"
$pack -cf ../www/a.tar d && gzip -nk ../www/a.tar && cp ../www/a.tar.gz ../www/no-suffix
echo text > ../www/text
touch -d @1000000000 ../www/*
