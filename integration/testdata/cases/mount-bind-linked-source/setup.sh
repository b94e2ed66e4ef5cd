echo f > f; ln -s f l; mkdir d; echo x > d/x; ln -s d ld
