printf secret-of-the-test > ../token
mkdir ../www && echo f > ../www/f
git init -q ../www/repo.git && cd ../www/repo.git && echo r > r && git add r && git commit -qm one
