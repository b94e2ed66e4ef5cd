mkdir -p x/y; echo b > x/y/b; chmod 711 x; chmod 2750 x/y; ln -s x l
