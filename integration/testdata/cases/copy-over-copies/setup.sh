mkdir -p tree/opt/real/deep tree/opt/other archive/deep
printf file > tree/file
printf kept > tree/opt/real/kept
chmod 600 tree/opt/real/kept
chmod 2711 tree/opt/real
ln -s real tree/opt/link
ln -s /opt/real tree/absolute
ln -s /made/later tree/dangling
printf new > archive/file
ln archive/file archive/again
ln -s file archive/soft
printf x > archive/deep/x
touch -d @1000000000 archive/* archive/deep/x
chmod 4711 archive/file
tar -C archive --sort=name --owner=7 --group=8 -cf a.tar .
rm -r archive
