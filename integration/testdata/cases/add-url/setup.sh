echo f > f
mkdir -p ../www/sub
echo deep > ../www/sub/deep.txt
echo top > ../www/deep.txt
echo space > "../www/with space.txt"
touch -d @1000000000 ../www/*.txt ../www/sub/*.txt
echo index > ../www/index
