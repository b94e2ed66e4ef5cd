mkdir -p d/s; echo f > d/s/f; chmod 705 d; chmod 2711 d/s
