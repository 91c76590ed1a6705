from spheroidd.acquisition.store.memory_store import MemoryStackStore
from spheroidd.testing.store_contract import StoreContract


class TestMemoryStackStore(StoreContract):
    def new_store(self, tmp_path, emit):
        return MemoryStackStore(emit)
