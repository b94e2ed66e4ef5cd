ln -s ../../nowhere away; mkdir d; ln -s /etc/none d/absolute; ln -s self d/self
