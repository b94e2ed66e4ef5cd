mkdir ../www && echo f > ../www/f
