echo f > f; chmod 640 f; mkdir -p d/s; echo x > d/s/x; echo y > d/y; chmod 710 d; chmod 751 d/s/x; echo x > x; chmod 754 x
