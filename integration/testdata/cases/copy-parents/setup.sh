mkdir -p x/deep/er y; echo a > x/a.txt; echo ya > y/a.txt; echo b > x/deep/b.txt; echo c > x/deep/er/c.txt; echo t > a.top; echo o > x/o.md; chmod 711 x/deep
