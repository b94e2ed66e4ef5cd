. "${0%/*}/../../repository.sh"
echo file > ../file.txt
