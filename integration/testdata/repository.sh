# Makes repo.git with a branch, tags, a link and a submodule, in the directory above. For setup.sh of cases.
git init -q ../www/sub.git && cd ../www/sub.git
echo sub > s && git add . && git commit -qm sub
sub=$(git rev-parse HEAD)
git init -q ../repo.git && cd ../repo.git
mkdir -p dir/deep && echo one > f && echo deep > dir/deep/g && echo run > dir/run && chmod 755 dir/run && ln -s f link
git add . && git commit -qm one && git tag v1
git checkout -qb branch && echo branch > f && git commit -qam branch
git checkout -q main && echo two > f
printf '[submodule "sub"]\n\tpath = mod/sub\n\turl = ../sub.git\n' > .gitmodules
git update-index --add --cacheinfo 160000,$sub,mod/sub && mkdir -p mod/sub
git add f .gitmodules && git commit -qm two && git tag -am annotated v2
