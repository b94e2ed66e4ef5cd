mkdir -p ../other/sub && echo f > ../other/f && echo g > ../other/sub/g
