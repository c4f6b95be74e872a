// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice What the lens may find where a token, a wallet or a factory should be: it does as it was told, whatever it
/// is asked.
contract Actor {
    enum Way {
        Answer,
        Refuse,
        Burn
    }

    mapping(bytes4 selector => Way) private ways;
    mapping(bytes4 selector => bytes) private answers;

    function tell(bytes4 selector, Way way, bytes calldata answer) external {
        (ways[selector], answers[selector]) = (way, answer);
    }

    fallback() external {
        Way way = ways[msg.sig];
        bytes memory answer = answers[msg.sig];
        assembly {
            switch way
            case 0 { return(add(answer, 32), mload(answer)) }
            case 1 { revert(add(answer, 32), mload(answer)) }
            default { invalid() }
        }
    }
}

/// @notice A token that believes every signature, and pays.
contract GullibleToken {
    mapping(address payer => mapping(bytes32 nonce => bool)) public authorizationState;
    mapping(address account => uint256) public balanceOf;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256,
        uint256,
        bytes32 nonce,
        bytes calldata
    ) external virtual {
        pay(from, to, amount, nonce);
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256,
        uint256,
        bytes32 nonce,
        uint8,
        bytes32,
        bytes32
    ) external {
        pay(from, to, amount, nonce);
    }

    function pay(address from, address to, uint256 amount, bytes32 nonce) internal {
        require(!authorizationState[from][nonce], "used");
        authorizationState[from][nonce] = true;
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @notice Asks the payer's wallet as USDC does, copying all that it answers. The nonce is the digest.
contract AskingToken is GullibleToken {
    function transferWithAuthorization(
        address from,
        address to,
        uint256 amount,
        uint256,
        uint256,
        bytes32 nonce,
        bytes calldata signature
    ) external override {
        bytes4 selector = Wallet.isValidSignature.selector;
        (bool done, bytes memory answer) = from.staticcall(abi.encodeWithSelector(selector, nonce, signature));
        require(done && answer.length > 31 && abi.decode(answer, (bytes32)) == selector, "invalid signature");
        pay(from, to, amount, nonce);
    }
}

/// @notice A token and a wallet that answers, settles and accepts only if it gets all of the gas that was promised.
contract Demanding {
    /// @dev From the first instruction of this contract until it looks at the gas that is left.
    uint256 private constant ENTRY_GAS = 500;

    uint256 private immutable promised;

    constructor(uint256 promised_) {
        promised = promised_;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        insist();
        return this.isValidSignature.selector;
    }

    function authorizationState(address, bytes32) external view returns (bool) {
        insist();
        return true;
    }

    function balanceOf(address) external view returns (uint256) {
        insist();
        return 1;
    }

    fallback() external {
        insist();
    }

    function insist() private view {
        require(gasleft() + ENTRY_GAS >= promised, "short of gas");
    }
}

/// @notice Says what it was asked with, and how much gas it had left.
contract Echo {
    fallback() external {
        uint256 left = gasleft();
        bytes memory answer = abi.encode(left, keccak256(msg.data), msg.data.length);
        assembly {
            revert(add(answer, 32), mload(answer))
        }
    }
}

/// @notice Returns or reverts with as many zeros as its gas buys.
contract Flood {
    bool private immutable reverts;

    constructor(bool reverts_) {
        reverts = reverts_;
    }

    fallback() external {
        bool reverts_ = reverts;
        assembly {
            // Memory for 200 KB costs 95,000.
            let size := 200000
            if lt(gas(), 100000) { size := 32000 }
            if reverts_ { revert(0, size) }
            return(0, size)
        }
    }
}

/// @notice Calls the lens back with what it likes to hear, and reverts with the lens's own answer.
contract Liar {
    bytes private call;

    constructor(bytes memory call_) {
        call = call_;
    }

    fallback() external {
        (, bytes memory answer) = msg.sender.call(call);
        assembly {
            revert(add(answer, 32), mload(answer))
        }
    }
}

/// @notice Deploys a wallet that accepts every signature, always at the same address.
contract Factory {
    function place() public view returns (address) {
        bytes32 hash = keccak256(type(Wallet).creationCode);
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"ff", this, bytes32(0), hash)))));
    }

    function deploy() external {
        new Wallet{salt: 0}();
    }
}

contract Wallet {
    function isValidSignature(bytes32, bytes calldata) external pure returns (bytes4) {
        return this.isValidSignature.selector;
    }
}
