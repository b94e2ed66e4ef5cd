echo f > f; mkdir d; echo in > d/in; ln -s f lf; ln -s d ld; ln -s lf chain; ln -s /f abs; ln -s ../../f up
