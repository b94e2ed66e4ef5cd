mkdir tree; echo t > tree/t; echo a > a
