mkdir ../outside && echo "of the host" > ../outside/file && ln -s ../../outside link
