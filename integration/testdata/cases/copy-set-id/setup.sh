echo s > suid; chmod 6755 suid
